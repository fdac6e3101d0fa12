"""MD5 of the disk inside a VHDX or VHD file, or of some stretches of it, as JSON.

Arguments: FILE [OFFSET:LENGTH ...]. A differencing disk is read through its parents, which are
looked for beside it by the last part of the recorded name.
"""

import hashlib
import json
import os
import sys

import pyvhdi


def open_with_parents(path):
    disk = pyvhdi.file()
    disk.open(path)
    parent_name = disk.parent_filename
    if parent_name:
        name = parent_name.replace("\\", "/").rsplit("/", 1)[-1]
        disk.set_parent(open_with_parents(os.path.join(os.path.dirname(path), name)))
    return disk


def digest(disk, offset, length):
    md5 = hashlib.md5()
    end = offset + length
    position = offset
    while position < end:
        data = disk.read_buffer_at_offset(min(1 << 22, end - position), position)
        if not data:
            sys.exit("libvhdi read nothing at byte %d" % position)
        md5.update(data)
        position += len(data)
    return {"md5": md5.hexdigest(), "length": length}


def main(path, *stretches):
    disk = open_with_parents(path)
    ranges = [tuple(map(int, stretch.split(":"))) for stretch in stretches]
    ranges = ranges or [(0, disk.get_media_size())]
    print(json.dumps([digest(disk, offset, length) for offset, length in ranges]))


main(*sys.argv[1:])

"""Makes folders and files on an NTFS volume in a file, with libntfs-3g and without mounting it.

Argument: VOLUME. Standard input: a JSON list of steps, each {"folder": PATH},
{"file": PATH, "from": FILE or null for an empty one} or {"delete": PATH}. Paths have `/`, folders
come before what is in them.
"""

import ctypes
import json
import os
import stat
import sys

DATA = 0x80
PIECE = 1 << 22

ntfs = ctypes.CDLL("libntfs-3g.so.89", use_errno=True)
pointer, size, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
ntfs.ntfs_mount.restype = pointer
ntfs.ntfs_mount.argtypes = [text, ctypes.c_ulong]
ntfs.ntfs_umount.argtypes = [pointer, ctypes.c_int]
ntfs.ntfs_pathname_to_inode.restype = pointer
ntfs.ntfs_pathname_to_inode.argtypes = [pointer, pointer, text]
ntfs.ntfs_create.restype = pointer
ntfs.ntfs_create.argtypes = [pointer, ctypes.c_uint32, text, ctypes.c_uint8, ctypes.c_uint32]
ntfs.ntfs_delete.argtypes = [pointer, text, pointer, pointer, text, ctypes.c_uint8]
ntfs.ntfs_inode_close.argtypes = [pointer]
ntfs.ntfs_attr_open.restype = pointer
ntfs.ntfs_attr_open.argtypes = [pointer, ctypes.c_uint32, pointer, ctypes.c_uint32]
ntfs.ntfs_attr_pwrite.restype = size
ntfs.ntfs_attr_pwrite.argtypes = [pointer, size, size, text]
ntfs.ntfs_attr_close.argtypes = [pointer]


def expect(result, what):
    if not result:
        sys.exit("%s: %s" % (what, os.strerror(ctypes.get_errno())))
    return result


def inode(volume, path):
    return expect(ntfs.ntfs_pathname_to_inode(volume, None, path.encode()), path)


def create(volume, path, kind):
    parent, _, name = path.rpartition("/")
    folder = inode(volume, parent or "/")
    units = name.encode("utf-16-le")
    made = expect(ntfs.ntfs_create(folder, 0, units, len(units) // 2, kind), path)
    ntfs.ntfs_inode_close(folder)
    return made


def write(node, source, path):
    stream = expect(ntfs.ntfs_attr_open(node, DATA, None, 0), path)
    position = 0
    with open(source, "rb") as content:
        while piece := content.read(PIECE):
            done = ntfs.ntfs_attr_pwrite(stream, position, len(piece), piece)
            expect(done == len(piece), path)
            position += done
    ntfs.ntfs_attr_close(stream)


def delete(volume, path):
    parent, _, name = path.rpartition("/")
    units = name.encode("utf-16-le")
    node, folder = inode(volume, path), inode(volume, parent or "/")
    # Closes both.
    failed = ntfs.ntfs_delete(volume, path.encode(), node, folder, units, len(units) // 2)
    expect(not failed, path)


def main(path):
    volume = expect(ntfs.ntfs_mount(path.encode(), 0), path)
    for step in json.load(sys.stdin):
        if "folder" in step:
            ntfs.ntfs_inode_close(create(volume, step["folder"], stat.S_IFDIR))
        elif "file" in step:
            node = create(volume, step["file"], stat.S_IFREG)
            if step["from"]:
                write(node, step["from"], step["file"])
            ntfs.ntfs_inode_close(node)
        else:
            delete(volume, step["delete"])
    expect(ntfs.ntfs_umount(volume, 0) == 0, path)


main(*sys.argv[1:])

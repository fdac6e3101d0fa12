"""What dissect.ntfs reads on a volume: one JSON object a line for every name, short ones left out.

Usage: ntfs_reader.py VOLUME
"""

import hashlib
import json
import sys

from dissect.ntfs import NTFS

DOS = 2
FIRST_USER_RECORD = 24
# Everyone, anonymous, authenticated, interactive, users, guests.
ANYONE = {"S-1-1-0", "S-1-5-7", "S-1-5-11", "S-1-5-4", "S-1-5-32-545", "S-1-5-32-546"}
CHANGES = 0x0156 | 0x000D0000 | 0x50000000
INHERIT_ONLY = 8


def main():
    with open(sys.argv[1], "rb") as file:
        volume = NTFS(file)
        walk(volume, volume.mft.root, "")


def walk(volume, folder, path):
    short = {}
    index = folder.index("$I30")
    entries = list(in_tree(index, index.root.entries()))
    for entry in entries:
        name = entry.attribute
        if name.flags == DOS:
            short[entry.header.FileReference.SegmentNumberLowPart] = name.file_name
    for entry in entries:
        name = entry.attribute
        record = entry.dereference()
        if name.flags == DOS or record.segment < FIRST_USER_RECORD:
            continue
        inner = f"{path}\\{name.file_name}" if path else name.file_name
        print(json.dumps(describe(volume, record, name, inner, short.get(record.segment))))
        if record.is_dir() and not record.is_reparse_point():
            walk(volume, record, inner)


def in_tree(index, node):
    """The entries that the root leads to. `Index.entries` would also give those of blocks that are
    no longer part of the tree."""
    for entry in node:
        if entry.is_node:
            yield from in_tree(index, index.index_buffer(entry.node_vcn).entries())
        if entry.is_end:
            break
        yield entry


def describe(volume, record, name, path, short):
    information = record.attributes.STANDARD_INFORMATION[0].attribute
    is_folder = record.is_dir()
    digest, size = None, 0
    if not is_folder:
        content = record.open()
        hasher = hashlib.md5()
        while piece := content.read(1 << 20):
            hasher.update(piece)
            size += len(piece)
        digest = hasher.hexdigest()
    return {
        "path": path,
        "record": record.segment,
        "folder": is_folder,
        "size": size,
        "md5": digest,
        "attributes": int(information.file_attributes),
        "indexSize": name.file_size,
        "modified": information.last_modification_time_ns,
        "namespace": int(name.flags),
        "shortName": short,
        "streams": [a.name for a in record.attributes.DATA if a.name] if not is_folder else [],
        "anyoneWrites": anyone_writes(volume, information.security_id),
    }


def anyone_writes(volume, security_id):
    if not security_id:
        return None
    descriptor = volume.secure.lookup(security_id)
    if descriptor.dacl is None:
        return True
    return any(
        str(ace.sid) in ANYONE and ace.mask & CHANGES and not int(ace.header.AceFlags) & INHERIT_ONLY and int(ace.header.AceType) == 0
        for ace in descriptor.dacl.ace
    )


main()

"""Zeroes the code of all chips but some in a CUDA library, so that it packs small: `gpu_prune.py IN OUT 90,80`.

A fat binary is a row of entries, each for one chip. Only the bytes of entries change, so offsets stay as they are.
Only the machine with the GPU can tell whether its driver loads such a file; `gpu-pack.sh --whole` leaves it unchanged.
"""

import struct
import sys


def fat_binaries(data):
    """Start and length of the section that holds them, by the section headers of a 64-bit ELF file."""
    (headers,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    at = lambda number: struct.unpack_from("<IIQQQQ", data, headers + number * size)
    strings = at(names)[4]
    for number in range(count):
        name, _, _, _, offset, length = at(number)
        start = strings + name
        if data[start : data.index(0, start)] == b".nv_fatbin":
            return offset, length
    raise SystemExit("this file has no section .nv_fatbin")


def prune(data, chips):
    """Bytes kept and zeroed."""
    offset, length = fat_binaries(data)
    place, end, kept, zeroed = offset, offset + length, 0, 0
    while place + 16 <= end:
        if data[place : place + 4] != MAGIC:
            place += 8
            continue
        _, header, size = struct.unpack_from("<HHQ", data, place + 4)
        entry, last = place + header, place + header + size
        while entry < last:
            (head,), (code,) = struct.unpack_from("<I", data, entry + 4), struct.unpack_from("<Q", data, entry + 8)
            (chip,) = struct.unpack_from("<I", data, entry + 0x1C)
            if chip in chips:
                kept += code
            else:
                data[entry + head : entry + head + code] = bytes(code)
                zeroed += code
            entry += head + code
        place = (last + 7) // 8 * 8
    return kept, zeroed


MAGIC = b"\x50\xed\x55\xba"

if __name__ == "__main__":
    source, target, chips = sys.argv[1:]
    with open(source, "rb") as file:
        library = bytearray(file.read())
    kept, zeroed = prune(library, {int(chip) for chip in chips.split(",")})
    if not kept:
        raise SystemExit(f"nothing for chip {chips} in {source}; use gpu-pack.sh --whole")
    with open(target, "wb") as file:
        file.write(library)
    print(f"{kept / 1e6:.0f} MB of code kept, {zeroed / 1e6:.0f} MB zeroed")

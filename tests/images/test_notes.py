"""Which notes the walk of a note segment takes: by name, type and the number at the end of a name."""

import struct

import pytest

from tests.writers import elf
from xsave._records import NUMBERED, STARTS_GROUP, NoteTable

PLAIN, NUMBERS = 1, 2
RULES = [
    (b"LINUX", 0x202, PLAIN, 0, -1),
    (b"CORE", 1, 3, STARTS_GROUP, 32),
    (b"NetBSD-CORE@", 33, NUMBERS, NUMBERED, -1),
]


def walk(data):
    table = NoteTable(RULES)
    table.begin(0, len(data), len(data))
    assert not table.feed(data, 0)
    return table


def raw(name, kind, data):
    """A note whose name is exactly these bytes."""
    padded = name + bytes(-len(name) % 4)
    return struct.pack("<III", len(name), len(data), kind) + padded + data + bytes(-len(data) % 4)


@pytest.mark.parametrize("name", [b"LINUX\0", b"LINUX", b"LINUX\0\0\0"])
def test_a_name_with_and_without_its_end(name):
    assert walk(raw(name, 0x202, b"state")).find_any(PLAIN) is not None


@pytest.mark.parametrize("name", [b"LINUY\0", b"LINUXX\0", b"LINU\0", b"XINUX\0", b"linux\0", b"\0", b"", b"LIN\0X\0"])
def test_another_name_is_another_note(name):
    table = walk(raw(name, 0x202, b"state"))
    assert (table.notes, table.find_any(PLAIN), table.bad_offset) == (1, None, -1)


def test_another_type_is_another_note():
    table = walk(raw(b"LINUX\0", 0x201, b"state"))
    assert (table.notes, table.find_any(PLAIN)) == (1, None)


@pytest.mark.parametrize("number", [0, 7, 10, 1234567, 0x0CCCCCCB, 2147483639])
def test_the_number_of_a_name(number):
    table = walk(raw(b"NetBSD-CORE@%d\0" % number, 33, b"regs"))
    assert (table.groups, table.number(0)) == (1, number)
    assert table.find(0, NUMBERS) is not None


@pytest.mark.parametrize("end", [b"", b"x", b"7x", b"x7", b"/", b":", b"1:", b" 7", b"-7", b"9" * 11, b"2147483640"])
def test_what_is_no_number(end):
    table = walk(raw(b"NetBSD-CORE@" + end + b"\0", 33, b"regs"))
    assert (table.notes, table.groups, table.find_any(NUMBERS)) == (1, 0, None)


@pytest.mark.parametrize(("size", "number"), [(36, 77), (35, 0), (32, 0), (0, 0), (40, 77)])
def test_the_number_in_a_descriptor(size, number):
    """The four bytes at the rule's offset, if the descriptor holds all of them."""
    data = (bytes(32) + struct.pack("<I", 77) + bytes(4))[:size]
    table = walk(elf.note(b"CORE", 1, data) + elf.note(b"LINUX", 0x202, b"\xff" * 64))
    assert (table.groups, table.number(0)) == (1, number)

"""CPUID text and kvm_cpuid2: every form that is written is read back; anything else is one clear error."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import skips
from tests.paths import DATA
from tests.writers import cpuid_text
from xsave import CpuModel, FormatError, TruncatedError, UnsupportedError
from xsave.cpuid import TEXT_LIMIT, read_kvm_cpuid2, read_text

registers = st.tuples(*[st.integers(0, 2**32 - 1)] * 4)
records = st.dictionaries(
    st.tuples(st.sampled_from([1, 4, 7, 0xD, 0x1D, 0x40000000, 0x80000001, 0xFFFFFFFF]), st.integers(0, 62)),
    registers,
    min_size=1,
).map(lambda leaves: {(0, 0): (0x20, 1, 2, 3), **leaves})


@pytest.mark.parametrize("form", cpuid_text.TEXTS)
@given(leaves=records)
@settings(max_examples=30)
def test_round_trip(form, leaves):
    assert read_text(cpuid_text.TEXTS[form](leaves))[0] == leaves


@given(leaves=records)
def test_kvm_cpuid2_round_trip(leaves):
    assert read_kvm_cpuid2(cpuid_text.kvm_cpuid2(leaves)) == leaves


@pytest.mark.parametrize("name", CpuModel.names())
@pytest.mark.parametrize("form", cpuid_text.TEXTS)
def test_named_models_survive_their_text(form, name):
    model = CpuModel.named(name)
    assert CpuModel.from_text(cpuid_text.TEXTS[form](dict(model.cpuid))) == model


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_bytes_in_the_encodings_of_reports(encoding):
    model = CpuModel.named("EPYC-Genoa")
    assert CpuModel.from_text(cpuid_text.dump(dict(model.cpuid)).encode(encoding)) == model


def test_lines_without_sub_leaf_numbers():
    """Consecutive ones, and those of a tool that leaves empty sub-leaves of 0DH out."""
    skylake, turin = (dict(CpuModel.named(name).cpuid) for name in ("Skylake-Client", "EPYC-Turin"))
    skylake = {key: value for key, value in skylake.items() if key[0] not in (7, 0x12, 0x14)}
    assert read_text(cpuid_text.dump(skylake, labels=False))[0] == skylake
    turin = {key: value for key, value in turin.items() if key[0] != 7}
    text = cpuid_text.dump(turin, labels=False)
    assert sorted(bit for leaf, bit in read_text(text)[0] if leaf == 0xD) == [0, 1, 2, 5, 6, 7, 9, 11, 12]
    whole = dict(sorted({**turin, **{(0xD, bit): turin.get((0xD, bit), (0, 0, 0, 0)) for bit in range(13)}}.items()))
    assert read_text(cpuid_text.dump(whole, labels=False))[0] == whole


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["line 1", "nothing", "expected"]),
        ("processor: 0\nvendor_id: GenuineIntel\n", ["line 1", "processor", "cpuid -r"]),
        ("CPU:\n   0x00000000 0x00: eax=0x0000001c ebx=0x6874\n", ["line 2", "0x0000001c"]),
        ("CPU:\n   0x00000000 0x00: eax=0x0000001c ebx=0x1 ecx=0xnope edx=0x0\n", ["line 2", "ecx", "0xnope", "hex"]),
        ("CPU:\n   0x00000000 0x00: eax=0x0000001c ecx=0x1 ebx=0x0 edx=0x0\n", ["line 2", "ecx=0x1", "ebx"]),
        ("\n\nCPUID 0000000D: 00000007-00000340-00000340\n", ["line 3", "EAX-EBX-ECX-EDX"]),
        ("CPUID 0000000D: 00000007-00000340-00000340-0000000G", ["line 1", "edx", "0000000G"]),
        ("CPUID 0000000D: 00000007-00000340-00000340-00000000 [SL zz]", ["line 1", "sub-leaf", "zz"]),
        ("CPUID 00000000: 00000007-00000340-00000340-00000000\n0x1 0: eax=0 ebx=0 ecx=0 edx=0", ["line 2", "one form"]),
        ("{", ["line 1", "JSON"]),
        ("{\n\n}}", ["line 3", "JSON"]),
        ("[" * 100_000, ["JSON", "deep"]),
        ("{}", ["JSON without"]),
        ('[{"function": 0, "eax": 1}]', ["entry 0", "ebx"]),
        ('[{"function": 0, "eax": 1, "ebx": 1, "ecx": true, "edx": 0}]', ["entry 0", "ecx", "True"]),
        ('[{"function": 0, "eax": 4294967296, "ebx": 1, "ecx": 1, "edx": 0}]', ["entry 0", "eax", "4294967296"]),
        ('[["d", "0", "7", "340", "340", "-1"]]', ["row 0", "-1"]),
        ('[["d", "0", "7", "340", "340", "0"], 3]', ["row 1"]),
        ('{"d.0": ["7", "340", "340"]}', ["d.0", "eax"]),
        ("x" * (TEXT_LIMIT + 1), ["1,048,577", "at most 1,048,576"]),
    ],
)
def test_errors_name_place_found_and_expected(text, words):
    with pytest.raises(FormatError) as caught:
        CpuModel.from_text(text)
    for word in words:
        assert word in str(caught.value)


def test_a_text_without_xsave():
    with pytest.raises(UnsupportedError, match="XSAVE"):
        CpuModel.from_text("CPU:\n   0x00000000 0x00: eax=0x00000001 ebx=0x0 ecx=0x0 edx=0x0\n")


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"\x01\0\0", TruncatedError, "3 bytes"),
        (bytes(8), FormatError, "found 0"),
        (b"\xff" * 48, FormatError, "4294967295"),
        (b"\x02" + bytes(47), TruncatedError, "expected 88"),
    ],
)
def test_kvm_cpuid2_errors(data, error, words):
    with pytest.raises(error, match=words):
        CpuModel.from_kvm_cpuid2(data)


def _read(function, data):
    try:
        function(data)
    except (FormatError, UnsupportedError):
        pass


@given(st.one_of(st.text(), st.binary()))
@settings(max_examples=200)
def test_garbage_is_a_clear_error(data):
    _read(CpuModel.from_text, data)


@given(st.binary(max_size=200))
def test_garbage_blobs(data):
    _read(CpuModel.from_kvm_cpuid2, data)


@given(
    st.sampled_from(sorted(cpuid_text.TEXTS)),
    st.sampled_from(["SapphireRapids", "Bulldozer", "EPYC-Genoa"]),
    st.data(),
)
@settings(max_examples=300)
def test_mutated_text(form, name, data):
    """A few characters of a true text replaced, or the rest cut off."""
    text = cpuid_text.TEXTS[form](dict(CpuModel.named(name).cpuid))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from([*'f0-\n:"]9\0', ""])) + text[at + 1 :]
    if data.draw(st.booleans()):
        text = text[: data.draw(st.integers(0, len(text)))]
    _read(CpuModel.from_text, text)


KEYS = ["function", "index", "eax", "ebx", "ecx", "edx", "d.0", "1.0"]
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.one_of(st.text(max_size=4), st.sampled_from(KEYS)), inner, max_size=7),
    ),
    max_leaves=20,
)


@given(json_values)
@settings(max_examples=300)
def test_any_json(value):
    _read(CpuModel.from_text, json.dumps([value]))


@pytest.mark.parametrize(
    "piece",
    ["[", '{"a":', "0x", "CPUID ", "CPUID 00000000: ", " ", "\n", "0x1 0: eax=0 ebx=0 ecx=0 edx=0\n", '"', "eax=", "-"],
)
def test_linear_time(piece):
    text = piece * (TEXT_LIMIT // len(piece))
    began = time.perf_counter()
    _read(CpuModel.from_text, text)
    _read(CpuModel.from_text, "[" + text[1:])
    assert time.perf_counter() - began < 10


@skips.needs_data()
@pytest.mark.parametrize(
    ("file", "mask", "profile"),
    [("intel", 0x600E7, "intel"), ("zen5", 0xE7, "amd-zen5"), ("bochs", 0x602E7, "intel")],
)
def test_json_of_the_vectors(file, mask, profile):
    model = CpuModel.from_text((DATA / "vectors" / f"cpuid_{file}.json").read_text())
    assert (model.xcr0_mask, model.profile) == (mask, profile)
    assert set(model.components) == set(model.xcr0_mask) | set(model.xss_mask)


@skips.needs_data()
@pytest.mark.parametrize("name", ["intel-supported-cpuid", "intel-vcpu1.cpuid2", "intel-vcpu2.cpuid2"])
def test_kvm_blobs(name):
    folder = DATA / "images" / "local" / "kvm"
    leaves = read_kvm_cpuid2((folder / f"{name}.bin").read_bytes())
    described = json.loads((folder / f"{name}.bin.json").read_text())["leaf_d"]
    for entry in described:
        assert leaves[0xD, entry["index"]] == tuple(int(entry[key], 16) for key in ("eax", "ebx", "ecx", "edx"))
    if leaves[1, 0][2] >> 26 & 1:
        assert CpuModel.from_kvm_cpuid2((folder / f"{name}.bin").read_bytes()).vendor == "GenuineIntel"
    else:  # a nested KVM that fills leaf 0DH and hides XSAVE itself
        assert name == "intel-supported-cpuid"
        with pytest.raises(UnsupportedError, match="leaf 1 ECX bit 26"):
            CpuModel.from_kvm_cpuid2((folder / f"{name}.bin").read_bytes())

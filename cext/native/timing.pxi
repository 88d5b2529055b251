# What instructions take, for `xsave.host`: batches timed by the time-stamp counter, raw.

# manual name: (number, instructions of CPUID.0DH.1:EAX that it needs, restores first, restores second)
cdef dict _TIMED = {
    None: (TIME_NOTHING, 0, False, False),
    "XSAVE": (TIME_XSAVE, 0, False, False),
    "XSAVEOPT": (TIME_XSAVEOPT, 1, False, False),
    "XSAVEC": (TIME_XSAVEC, 2, False, False),
    "XRSTOR": (TIME_XRSTOR, 0, True, False),
    "FXSAVE": (TIME_FXSAVE, 0, False, False),
    "FXRSTOR": (TIME_FXRSTOR, 0, True, False),
    "XSAVEC+XRSTOR": (TIME_XSAVEC_XRSTOR, 2, False, True),
    "XRSTOR+XSAVEOPT": (TIME_XRSTOR_XSAVEOPT, 1, True, False),
    "memcpy": (TIME_MEMCPY, 0, False, False),
}


def tsc():
    """The time-stamp counter, read when all instructions before are done."""
    return insn_tsc()


def tsc_step():
    """The smallest difference of two reads of the time-stamp counter that differ, in ticks, of ten thousand reads."""
    cdef uint64_t last = insn_tsc()
    cdef uint64_t now
    cdef uint64_t least = 0
    cdef int i
    for i in range(10000):
        now = insn_tsc()
        if now != last and (least == 0 or now - last < least):
            least = now - last
        last = now
    return least


def time_instruction(instruction, prime, first, second, mask, *, size_t batches, size_t visits, size_t count,
                     bint cold, bint reload, size_t size, size_t first_at, size_t second_at):
    """Ticks of each of `batches` batches, as a list; a batch is `visits` visits of `count` instructions.

    `prime`: the standard image of the registers; `first`, `second`: bytes of the two areas, which begin `first_at` and
    `second_at` bytes (multiples of 64) behind the beginning of a page and are followed by zeros; `size`: what memcpy
    moves. `instruction` None: the loop alone. The instructions are executed once under the fault guard before anything
    is timed. The GIL is released.

    Raises: `UnsupportedError` for an instruction that this CPU lacks, `ValueError` for another name, for sizes out of
    range and for a PKRU that closes this program's memory, `HostError` naming the fault of a restore.
    """
    cdef const insn_machine *cpu = insn_this_cpu()
    cdef size_t area = (max(cpu.area_size, 1024) + 4095) // 4096 * 4096
    cdef insn_timing timing
    cdef object given = (prime, first, second)
    cdef size_t[3] places
    cdef Py_buffer view
    cdef uint8_t *block
    cdef size_t total
    cdef size_t i
    _need_xsave()
    row = _TIMED.get(instruction)
    if row is None:
        raise ValueError(f"cannot time {instruction!r}: one of {', '.join([name for name in _TIMED if name])}")
    if row[1] & ~cpu.features:
        raise UnsupportedError(f"this CPU has no {instruction}: CPUID.0DH.1:EAX is {cpu.features:#x} [SDM1 13.2]")
    if not insn_has_rdtscp():
        raise UnsupportedError("this CPU has no RDTSCP: CPUID.80000001H:EDX[27] is 0")
    if not (0 < batches <= 1 << 20 and 0 < visits <= 1 << 20 and 0 < count <= 1 << 24):
        raise ValueError(f"{batches} batches of {visits} visits of {count} instructions: too few or too many")
    if first_at % 64 or second_at % 64 or first_at >= 4096 or second_at >= 4096:
        raise ValueError(f"areas {first_at} and {second_at} bytes behind a page's start: multiples of 64 below 4096")
    if size > area:
        raise ValueError(f"{size} bytes to move: at most {area}")
    for data in given:
        if len(memoryview(data).cast("B")) > cpu.area_size:
            raise ValueError(f"an area of more than {cpu.area_size} bytes")
    if row[2] or reload:
        _restores(prime, first, mask, instruction == "FXRSTOR")
    if row[3]:
        _restores(prime, second, mask, False)
    if not (row[2] or row[3] or reload):
        _restores(None, prime, -1, False)
    places[0] = area
    places[1] = 2 * area + first_at
    places[2] = 3 * area + 4096 + second_at
    total = 4 * area + 8192
    block = <uint8_t *>aligned_alloc(4096, total + (8 * batches + 4095) // 4096 * 4096)
    if block == NULL:
        raise MemoryError
    try:
        memset(block, 0, total + 8 * batches)
        memset(&timing, 0, sizeof(timing))
        for i in range(3):
            PyObject_GetBuffer(given[i], &view, PyBUF_SIMPLE)
            memcpy(block + places[i], view.buf, view.len)
            PyBuffer_Release(&view)
        timing.caller = <uintptr_t>block
        timing.prime = <uintptr_t>(block + places[0])
        timing.first = <uintptr_t>(block + places[1])
        timing.second = <uintptr_t>(block + places[2])
        timing.samples = <uintptr_t>(block + total)
        timing.mask = <uint64_t>(int(mask) & ALL)
        timing.batches = batches
        timing.visits = visits
        timing.count = count
        timing.flush = (cpu.area_size + 63) // 64 * 64 if cold else 0
        timing.size = size
        timing.op = row[0]
        timing.caps = cpu.caps
        timing.reload = reload
        with nogil:
            if timing.op == TIME_MEMCPY:
                insn_time_copy(&timing)
            else:
                insn_time(&timing)
        return [(<uint64_t *>(block + total))[j] for j in range(batches)]
    finally:
        free(block)


cdef int _restores(prime, image, mask, bint legacy) except -1:
    # What is timed without a guard must not fault: once under it.
    file = bytearray(sizeof(insn_registers))
    traps = roundtrip_many(bytes(image).ljust(insn_this_cpu().area_size, b"\0"), None, 1, save=None, prime=prime,
                           restore_mask=mask, restore="FXRSTOR" if legacy else "XRSTOR", registers=file)
    if traps:
        raise HostError(f"{traps[0].stage} of the image: {traps[0].vector}")
    at = REGISTER_FILE["pkru"][0]
    if int.from_bytes(file[at:at + 4], "little") & 3:
        raise ValueError("a PKRU that closes key 0, which is that of this program's own memory [SDM3A 4.6.2]")
    return 0

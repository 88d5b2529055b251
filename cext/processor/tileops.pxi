# The AMX instructions that move tile state (SDM2 LDTILECFG ... TILEZERO; order of checks as measured).

cdef int tile_prologue(Cpu *cpu, Outcome *out) noexcept nogil:
    cdef uint64_t both = cpu.tilecfg | cpu.tiledata
    if not cpu.long_mode:
        return fault(out, UD, R_MODE, NOWHERE, 0)
    if cpu.palettes.highest == 0:  # as on every CPU that lacks one of the components
        return fault(out, UD, R_CPUID, NOWHERE, 0)
    if not cpu.osxsave:
        return fault(out, UD, R_OSXSAVE, NOWHERE, 0)
    if cpu.xcr0 & both != both:
        return fault(out, UD, R_TILES_OFF, NOWHERE, both & ~cpu.xcr0)
    return DONE


cdef void empty_tiles(Cpu *cpu) noexcept nogil:
    # All tiles and the scale registers become initial.
    cdef int i
    cdef uint64_t bits = cpu.tiledata | (cpu.scale & cpu.ruler.known)
    for i in range(2, COMPONENT_LIMIT):
        if bits >> i & 1:
            write_initial_bytes(i, component_at(cpu, i), 0, cpu.stored[i])
    cpu.low &= ~bits
    cpu.unknown &= ~bits
    cpu.initial |= bits
    cpu.modified_low |= bits
    cpu.tiles_loaded = False


cdef int load_config(Cpu *cpu, Operand *op, Outcome *out) noexcept nogil:
    cdef uint8_t image[64]
    cdef uint8_t *cfg
    cdef uint32_t culprit = 0
    cdef int rule
    if tile_prologue(cpu, out) != DONE:
        return out.kind
    if check_buffer(op, TILECFG_SIZE, False, out) != DONE or probe(cpu, op, 0, TILECFG_SIZE, False, out) != DONE:
        return out.kind
    gather(op, TILECFG_SIZE, image)
    rule = config_fault(image, &cpu.palettes, cpu.xcr0, &culprit)
    if rule:
        return fault(out, GP, R_TILE_CONFIG, culprit, rule)
    cfg = component_at(cpu, lowest(cpu.tilecfg))
    memset(cfg, 0, TILECFG_SIZE)
    if image[0] == 1:
        memcpy(cfg, image, TILECFG_SIZE)
    cfg[0] = image[0]
    empty_tiles(cpu)
    touch(cpu, cpu.tilecfg)
    if not image[0]:
        cpu.low &= ~cpu.tilecfg
        cpu.unknown &= ~cpu.tilecfg
        cpu.initial |= cpu.tilecfg
    return leave(out, DONE, 0)


cdef int store_config(Cpu *cpu, Operand *op, Outcome *out) noexcept nogil:
    if tile_prologue(cpu, out) != DONE:
        return out.kind
    if check_buffer(op, TILECFG_SIZE, True, out) != DONE or probe(cpu, op, 0, TILECFG_SIZE, True, out) != DONE:
        return out.kind
    scatter(op, TILECFG_SIZE, component_at(cpu, lowest(cpu.tilecfg)))
    return leave(out, DONE, 0)


cdef int release_tiles(Cpu *cpu, Outcome *out) noexcept nogil:
    if tile_prologue(cpu, out) != DONE:
        return out.kind
    write_initial_bytes(lowest(cpu.tilecfg), component_at(cpu, lowest(cpu.tilecfg)), 0, TILECFG_SIZE)
    empty_tiles(cpu)
    cpu.low &= ~cpu.tilecfg
    cpu.unknown &= ~cpu.tilecfg
    cpu.initial |= cpu.tilecfg
    cpu.modified_low |= cpu.tilecfg
    return leave(out, DONE, 0)


cdef int check_tile(Cpu *cpu, const uint8_t *cfg, int tile, bint moves, Outcome *out) noexcept nogil:
    # What depends on the configuration, then XFD, then the restart row.
    cdef uint64_t disabled = cpu.xcr0 & cpu.xfd & cpu.tiledata
    cdef uint32_t colsb
    if cfg[0] == 0:
        return fault(out, UD, R_TILE_UNCONFIGURED, NOWHERE, tile)
    if moves and cfg[0] != 1:
        return fault(out, UD, R_TILE_PALETTE, NOWHERE, cfg[0])
    if not config_valid(cfg, tile):
        return fault(out, UD, R_TILE_INVALID, NOWHERE, tile)
    colsb = config_colsb(cfg, tile)
    if moves and colsb % 4:
        return fault(out, UD, R_TILE_COLSB, NOWHERE, colsb)
    if disabled:
        cpu.xfd_err = disabled
        return fault(out, NM, R_XFD, NOWHERE, disabled)
    if moves and cfg[START_ROW_AT] >= config_rows(cfg, tile):
        return fault(out, UD, R_TILE_START, NOWHERE, cfg[START_ROW_AT])
    return DONE


cdef int move_tile(Cpu *cpu, Operand *op, int tile, int64_t stride, bint store, Outcome *out) noexcept nogil:
    # TILELOADD and TILESTORED: row by row, restartable at the row that faults.
    cdef uint8_t *cfg
    cdef uint8_t *data
    cdef uint32_t colsb, rows, start, row
    cdef uint64_t offset
    cdef Operand shifted
    cdef int status = DONE
    if tile_prologue(cpu, out) != DONE:
        return out.kind
    cfg = component_at(cpu, lowest(cpu.tilecfg))
    if check_tile(cpu, cfg, tile, True, out) != DONE:
        return out.kind
    data = component_at(cpu, lowest(cpu.tiledata)) + TILE_BYTES * tile
    colsb = config_colsb(cfg, tile)
    rows = config_rows(cfg, tile)
    start = cfg[START_ROW_AT]
    if op.regions == NULL:
        if store and not op.writable:
            return leave(out, READ_ONLY, 0)
        for row in range(start, rows):
            offset = <uint64_t>(row * stride)
            if offset > op.length or op.length - offset < colsb:
                return leave(out, SHORT, offset + colsb)
    if cpu.atomic:
        for row in range(start, rows):
            if probe(cpu, op, <uint64_t>(row * stride), colsb, store, out) != DONE:
                return out.kind
    if not store:
        memset(data + TILE_ROW_BYTES * start, 0, TILE_BYTES - TILE_ROW_BYTES * start)
        touch(cpu, cpu.tiledata)
        cpu.tiles_loaded = True
    for row in range(start, rows):
        offset = <uint64_t>(row * stride)
        status = probe(cpu, op, offset, colsb, store, out)
        if status != DONE:
            break
        shifted = op[0]
        shifted.address += offset
        if op.regions == NULL:
            shifted.bytes += offset
        if store:
            scatter(&shifted, colsb, data + TILE_ROW_BYTES * row)
        else:
            gather(&shifted, colsb, data + TILE_ROW_BYTES * row)
    cfg[START_ROW_AT] = 0 if status == DONE else row
    return leave(out, DONE, 0) if status == DONE else status


cdef int zero_tile(Cpu *cpu, int tile, Outcome *out) noexcept nogil:
    cdef uint8_t *cfg
    if tile_prologue(cpu, out) != DONE:
        return out.kind
    cfg = component_at(cpu, lowest(cpu.tilecfg))
    if check_tile(cpu, cfg, tile, False, out) != DONE:
        return out.kind
    memset(component_at(cpu, lowest(cpu.tiledata)) + TILE_BYTES * tile, 0, TILE_BYTES)
    cfg[START_ROW_AT] = 0
    touch(cpu, cpu.tiledata)
    cpu.tiles_loaded = True
    return leave(out, DONE, 0)


cdef int execute_tile(Cpu *cpu, Operand *op, int insn, int tile, int64_t stride, Outcome *out) noexcept nogil:
    if insn == LDTILECFG:
        return load_config(cpu, op, out)
    if insn == STTILECFG:
        return store_config(cpu, op, out)
    if insn == TILERELEASE:
        return release_tiles(cpu, out)
    if insn == TILEZERO:
        return zero_tile(cpu, tile, out)
    return move_tile(cpu, op, tile, stride, insn == TILESTORED, out)


cdef int execute(Cpu *cpu, Operand *op, int insn, uint64_t mask, bint rexw, Outcome *out) noexcept nogil:
    # One instruction of the XSAVE family; for tile instructions `execute_tile`.
    if insn <= XSAVES:
        return save(cpu, op, insn, mask, rexw, out)
    if insn <= XRSTORS:
        return restore(cpu, op, insn, mask, rexw, out)
    if insn == FXSAVE:
        return fxsave(cpu, op, rexw, out)
    return fxrstor(cpu, op, rexw, out)

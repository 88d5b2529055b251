# bash completion of xsave
_xsave() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local words verb=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ $COMP_CWORD = 1 ]; then
        COMPREPLY=($(compgen -W 'decode layout convert diff validate audit run conformance bench live tour --version --help' -- "$word") $(compgen -f -- "$word"))
        return
    fi
    case $verb,$before in
    decode,--reg) return ;;
    decode,--component) return ;;
    decode,--thread) return ;;
    decode,-t) COMPREPLY=($(compgen -W 'u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64' -- "$word")); return ;;
    decode,--cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    decode,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    decode,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    layout,--vs) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    layout,--mask) return ;;
    layout,--format) COMPREPLY=($(compgen -W 'standard compacted' -- "$word")); return ;;
    layout,--emit) COMPREPLY=($(compgen -W 'c json' -- "$word")); return ;;
    layout,--frame) COMPREPLY=($(compgen -W 'linux windows sgx tdx' -- "$word")); return ;;
    layout,--xcr0) return ;;
    layout,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    layout,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    convert,--to) COMPREPLY=($(compgen -W 'standard compacted' -- "$word")); return ;;
    convert,--to-cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    convert,--mask) return ;;
    convert,--cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    convert,--thread) return ;;
    convert,--lost) COMPREPLY=($(compgen -W 'raise drop' -- "$word")); return ;;
    convert,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    convert,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    diff,--reg) return ;;
    diff,--component) return ;;
    diff,--thread) return ;;
    diff,-t) COMPREPLY=($(compgen -W 'u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64' -- "$word")); return ;;
    diff,--cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    diff,--vs-cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    diff,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    diff,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    validate,--cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    validate,--xcr0) return ;;
    validate,--xss) return ;;
    validate,--thread) return ;;
    validate,--instruction) COMPREPLY=($(compgen -W 'XRSTOR XRSTORS FXRSTOR LDTILECFG' -- "$word")); return ;;
    validate,--ioctl) COMPREPLY=($(compgen -W 'KVM_SET_XSAVE' -- "$word")); return ;;
    validate,--xfd) return ;;
    validate,--mask) return ;;
    validate,--cpl) COMPREPLY=($(compgen -W '0 1 2 3' -- "$word")); return ;;
    validate,--mode) COMPREPLY=($(compgen -W '64 32' -- "$word")); return ;;
    validate,--address) return ;;
    validate,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    validate,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    audit,--lint) COMPREPLY=($(compgen -W 'cpuid config' -- "$word")); return ;;
    audit,--fail-on) COMPREPLY=($(compgen -W 'error warning note never' -- "$word")); return ;;
    audit,--policy) return ;;
    audit,--fact) return ;;
    audit,--write) return ;;
    audit,--buffer) return ;;
    audit,--save) COMPREPLY=($(compgen -W 'rfbm-all rfbm-host rfbm-buffer' -- "$word")); return ;;
    audit,--restore) COMPREPLY=($(compgen -W 'buffer max' -- "$word")); return ;;
    audit,--buffer-mask) return ;;
    audit,--script) COMPREPLY=($(compgen -f -- "$word")); return ;;
    audit,--cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    audit,--xcr0) return ;;
    audit,--xss) return ;;
    audit,--xfd) return ;;
    audit,--instruction) return ;;
    audit,--rfbm) return ;;
    audit,--in-use) return ;;
    audit,--size) return ;;
    audit,--host) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    audit,--thread) return ;;
    audit,--migrate-to) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    audit,--to-xcr0) return ;;
    audit,--to-xss) return ;;
    audit,--by) return ;;
    audit,--lost) COMPREPLY=($(compgen -W 'raise drop' -- "$word")); return ;;
    audit,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    audit,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    run,--cpu) COMPREPLY=($(compgen -W "$(xsave layout --list 2>/dev/null | awk 'NR > 1 { print $1 }') host" -- "$word") $(compgen -f -- "$word")); return ;;
    run,--state) COMPREPLY=($(compgen -f -- "$word")); return ;;
    run,--xcr0) return ;;
    run,--xss) return ;;
    run,--xfd) return ;;
    run,--mask) return ;;
    run,--cpl) COMPREPLY=($(compgen -W '0 1 2 3' -- "$word")); return ;;
    run,--mode) COMPREPLY=($(compgen -W '64 32' -- "$word")); return ;;
    run,--address) return ;;
    run,--seed) return ;;
    run,--thread) return ;;
    run,--index) return ;;
    run,--value) return ;;
    run,--tile) COMPREPLY=($(compgen -W '0 1 2 3 4 5 6 7' -- "$word")); return ;;
    run,--stride) return ;;
    run,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    run,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    conformance,--cases) return ;;
    conformance,--seed) return ;;
    conformance,--case) return ;;
    conformance,--steps) return ;;
    conformance,--narrow) return ;;
    conformance,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    conformance,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    bench,--seconds) return ;;
    bench,--seed) return ;;
    bench,--within) return ;;
    bench,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    bench,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    live,--reg) return ;;
    live,--component) return ;;
    live,--thread) return ;;
    live,-t) COMPREPLY=($(compgen -W 'u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64' -- "$word")); return ;;
    live,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    live,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    tour,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    tour,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
    esac
    case $verb in
    decode) words='--reg --component --thread -t --all --cpu --json --ndjson --csv -o -h --help --color --ascii --provenance -q -v --debug' ;;
    layout) words='--vs --mask --format --supervisor --list --emit --frame --xcr0 --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    convert) words='--to --to-cpu --mask --cpu --thread --lost --hex --raw --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    diff) words='--reg --component --thread -t --cpu --vs-cpu --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    validate) words='--cpu --xcr0 --xss --thread --instruction --ioctl --ptrace --xfd --mask --cpl --mode --address --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    audit) words='--demo --prove --list --lint --fail-on --policy --fact --write --buffer --save --restore --buffer-mask --script --cpu --xcr0 --xss --xfd --instruction --rfbm --in-use --size --host --thread --migrate-to --to-xcr0 --to-xss --by --lost --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    run) words='--cpu --state --host --both --xcr0 --xss --xfd --mask --cpl --mode --address --ac --ts --seed --thread --no-rexw --index --value --tile --stride --json -h --help --color --ascii --provenance -q -v --debug -o' ;;
    conformance) words='--cases --seed --case --steps --narrow --differences --tiles --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    bench) words='--seconds --seed --any-machine --within --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    live) words='--reg --component --thread -t --all --json --ndjson --csv -o -h --help --color --ascii --provenance -q -v --debug' ;;
    tour) words='--json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    *) words= ;;
    esac
    case $word in
    -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}
complete -o filenames -F _xsave xsave

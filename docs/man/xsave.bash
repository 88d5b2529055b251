# bash completion of xsave
_xsave() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local words verb=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ $COMP_CWORD = 1 ]; then
        COMPREPLY=($(compgen -W 'decode layout convert diff validate live tour --version --help' -- "$word") $(compgen -f -- "$word"))
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
    validate,-o) COMPREPLY=($(compgen -f -- "$word")); return ;;
    validate,--color) COMPREPLY=($(compgen -W 'auto always never' -- "$word")); return ;;
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
    layout) words='--vs --mask --format --supervisor --list --emit --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    convert) words='--to --to-cpu --mask --cpu --thread --lost --hex --raw --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    diff) words='--reg --component --thread -t --cpu --vs-cpu --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
    validate) words='--cpu --xcr0 --xss --thread --json -o -h --help --color --ascii --provenance -q -v --debug' ;;
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

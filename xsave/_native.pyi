from typing import final

from typing_extensions import Buffer

MAX_THREADS: int
CHILD_STATE_SIZE: int
REGISTER_FILE_SIZE: int
REGISTER_FILE: dict[str, tuple[int, int, int]]

@final
class Trap:
    @property
    def index(self) -> int: ...
    @property
    def stage(self) -> str: ...
    @property
    def vector(self) -> str: ...
    @property
    def signal(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def error_code(self) -> int | None: ...
    @property
    def address(self) -> int | None: ...

@final
class Arena:
    def __new__(cls, pages: int, *, hole: int | None = None, read_only: bool = False) -> Arena: ...
    @property
    def size(self) -> int: ...
    @property
    def address(self) -> int: ...
    def write(self, offset: int, data: Buffer) -> None: ...
    def read(self, offset: int, size: int) -> bytes: ...

def run_steps(
    steps: list[tuple[str, int, int, int | bytes, bool, bool]], prime: Buffer, *, align_check: bool = False
) -> tuple[bytes, int, Trap | None, int | None, int | None, int | None, list[int]]: ...
def cpuid(leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]: ...
def xgetbv(index: int = 0) -> int: ...
def area_size() -> int: ...
def abilities() -> dict[str, bool]: ...
def capture(instruction: str, mask: int, buffer: Buffer) -> None: ...
def roundtrip_many(
    images: Buffer | None,
    outs: Buffer | None,
    count: int,
    *,
    restore: str | None = "XRSTOR",
    restore_mask: int = -1,
    save: str | None = "XSAVE",
    save_mask: int = -1,
    rexw: bool = True,
    prime: Buffer | None = None,
    registers: Buffer | None = None,
    xinuse: Buffer | None = None,
    in_place: bool = False,
) -> list[Trap]: ...
def roundtrip(
    image: Buffer | None,
    out: Buffer | None,
    *,
    restore: str | None = "XRSTOR",
    restore_mask: int = -1,
    save: str | None = "XSAVE",
    save_mask: int = -1,
    rexw: bool = True,
    prime: Buffer | None = None,
    registers: Buffer | None = None,
    xinuse: Buffer | None = None,
    in_place: bool = False,
) -> Trap | None: ...
def xrstor_reads(image: Buffer, mask: int = -1) -> bytes: ...
def arch_prctl(code: int, value: int | None = None) -> int: ...
def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None: ...
def ptrace_regset(tid: int, note: int, size: int) -> bytes: ...
def child_start(
    state: Buffer, registers: Buffer, *, spin: bool = False, directory: bytes, coredump_filter: bytes, lifetime: int
) -> int: ...
def child_status(state: Buffer) -> tuple[int, int, int, int, bool, list[int]]: ...
def child_crash(state: Buffer) -> None: ...
def tsc() -> int: ...
def tsc_step() -> int: ...
def time_instruction(
    instruction: str | None,
    prime: Buffer,
    first: Buffer,
    second: Buffer,
    mask: int,
    *,
    batches: int,
    visits: int,
    count: int,
    cold: bool,
    reload: bool,
    size: int,
    first_at: int,
    second_at: int,
) -> list[int]: ...

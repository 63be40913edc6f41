//! A call of unknown architecture, number and arguments, as the solver sees it, and one that it has found.

use std::fmt;

use hardened_sandbox::seccomp::{Arch, Call};
use libc::{EM_386, EM_AARCH64, EM_ARM, EM_X86_64};

use crate::script::Script;

/// `__AUDIT_ARCH_64BIT` and `__AUDIT_ARCH_LE`: linux/audit.h.
const AUDIT_64BIT: u32 = 0x8000_0000;
const AUDIT_LITTLE_ENDIAN: u32 = 0x4000_0000;

/// `__X32_SYSCALL_BIT`: asm/unistd.h of x86.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) const ARCH: &str = "arch";
pub(crate) const NUMBER: &str = "number";

/// Names of everything that is unknown of a call.
pub(crate) const UNKNOWN: [&str; 8] = [ARCH, NUMBER, "arg0", "arg1", "arg2", "arg3", "arg4", "arg5"];

pub(crate) fn declare(script: &mut Script) {
    for name in UNKNOWN {
        script.declare(name, if name.starts_with("arg") { 64 } else { 32 });
    }
}

/// The low half of an argument.
pub(crate) fn low(argument: u8) -> String {
    format!("((_ extract 31 0) arg{argument})")
}

/// The high half of an argument.
pub(crate) fn high(argument: u8) -> String {
    format!("((_ extract 63 32) arg{argument})")
}

/// The call of these values, in the order of [`UNKNOWN`].
pub(crate) fn from_values(values: &[u64]) -> Option<Call> {
    let [arch, number, arguments @ ..] = values else { return None };
    let (arch, number) = (u32::try_from(*arch).ok()?, u32::try_from(*number).ok()?);
    Some(Call { arch, number, arguments: arguments.try_into().ok()? })
}

/// `AUDIT_ARCH_*` of linux/audit.h: the machine's number in its ELF files, its word size and byte order.
pub(crate) fn audit(arch: Arch) -> u32 {
    let machine = match arch {
        Arch::X86_64 => EM_X86_64,
        Arch::Aarch64 => EM_AARCH64,
    };
    u32::from(machine) | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN
}

/// A call in words: `ioctl(0x1, 0x5412)`, with as many arguments as are not zero.
pub(crate) struct Shown<'a>(pub(crate) &'a Call, pub(crate) Arch);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(call, native) = self;
        let is_native = call.arch == audit(*native);
        match native.name(call.number) {
            Some(name) if is_native => f.write_str(name)?,
            _ if is_native && *native == Arch::X86_64 && call.number & X32_BIT != 0 => {
                write!(f, "call {} of x32", call.number & !X32_BIT)?;
            }
            _ if is_native => write!(f, "call {}", call.number)?,
            _ => write!(f, "call {} of {}", call.number, machine(call.arch))?,
        }
        let given = call.arguments.iter().rposition(|argument| *argument != 0).map_or(0, |last| last + 1);
        let arguments: Vec<String> = call.arguments[..given].iter().map(|argument| format!("{argument:#x}")).collect();
        write!(f, "({})", arguments.join(", "))
    }
}

fn machine(arch: u32) -> String {
    match (arch as u16, arch & AUDIT_64BIT != 0) {
        (EM_386, false) => "i386".to_owned(),
        (EM_X86_64, true) => "x86_64".to_owned(),
        (EM_ARM, false) => "32-bit Arm".to_owned(),
        (EM_AARCH64, true) => "aarch64".to_owned(),
        _ => format!("the architecture {arch:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_shown_as_a_person_writes_it() {
        let shown = |arch: u32, number: u32, arguments: [u64; 6]| {
            Shown(&Call { arch, number, arguments }, Arch::X86_64).to_string()
        };
        assert_eq!(shown(0xc000_003e, 16, [1, 0x1_0000_5412, 0, 0, 0, 0]), "ioctl(0x1, 0x100005412)");
        assert_eq!(shown(0xc000_003e, 39, [0; 6]), "getpid()");
        assert_eq!(shown(0xc000_003e, 4000, [0, 0, 0, 0, 0, 1]), "call 4000(0x0, 0x0, 0x0, 0x0, 0x0, 0x1)");
        assert_eq!(shown(0xc000_003e, 0x4000_003b, [0; 6]), "call 59 of x32()");
        assert_eq!(shown(0x4000_0003, 11, [0; 6]), "call 11 of i386()");
        assert_eq!(shown(0xc000_00b7, 11, [0; 6]), "call 11 of aarch64()");
        assert_eq!(shown(0x16, 11, [0; 6]), "call 11 of the architecture 0x16()");
    }

    #[test]
    fn values_are_a_call_if_they_fit() {
        let call = Call { arch: 1, number: 2, arguments: [3, 4, 5, 6, 7, u64::MAX] };
        assert_eq!(from_values(&[1, 2, 3, 4, 5, 6, 7, u64::MAX]), Some(call));
        for wrong in [&[1, 2, 3, 4, 5, 6, 7][..], &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[1, 1 << 32, 3, 4, 5, 6, 7, 8], &[]] {
            assert_eq!(from_values(wrong), None);
        }
    }

    #[test]
    fn the_number_of_an_architecture_is_that_of_its_elf_files() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            assert_eq!(audit(arch), arch.audit());
        }
    }
}

//! Runs a program on what looks like an older kernel.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// `run(["444,446", "program", "argument"])`: comes back only with an error.
pub(crate) fn run(arguments: &[String]) {
    let [numbers, program, rest @ ..] = arguments else {
        eprintln!("without: expected NUMBER[,NUMBER...] PROGRAM ARGUMENTS...");
        return;
    };
    let numbers: Vec<u32> = numbers.split(',').filter_map(|n| n.parse().ok()).collect();
    let error = match mask(&numbers) {
        Ok(()) => Command::new(program).args(rest).exec(),
        Err(error) => error,
    };
    eprintln!("without: {program}: {error}");
    std::process::exit(127);
}

/// Lets these calls fail with ENOSYS, for this process and all that it starts.
fn mask(numbers: &[u32]) -> std::io::Result<()> {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // Offset 0 of seccomp_data is the call's number.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for number in numbers {
        program.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *number));
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let length = u16::try_from(program.len()).map_err(std::io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points at `length` instructions, which the kernel copies.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

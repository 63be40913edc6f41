//! Standard streams and terminals.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, HARDENED, IMAGE, eventually, run};

crate::tests!(
    stdin_reaches_the_program_and_ends,
    stdin_of_an_exec_reaches_it_and_ends,
    a_gibibyte_comes_through_byte_for_byte,
    the_last_bytes_before_the_exit_are_not_lost,
    a_slow_reader_gets_everything,
    output_goes_to_a_file,
    dev_stdout_can_be_opened_again,
    output_waits_for_its_reader,
    a_container_without_streams_runs,
    the_hosts_dev_null_keeps_its_owner,
    a_terminal_has_the_callers_size,
    ctrl_c_interrupts_a_program_on_a_terminal,
    an_exec_gets_a_terminal_of_its_own,
);

fn stdin_reaches_the_program_and_ends(c: &Containerd) -> Result<()> {
    let input: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let out = c.run_under(HARDENED, &[], &["cat"], &input)?.ok()?;
    ensure!(out.stdout == input, "{} of {} bytes came back", out.stdout.len(), input.len());
    Ok(())
}

fn stdin_of_an_exec_reaches_it_and_ends(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let out = running.exec_with(&[], &["tr", "a-z", "A-Z"], b"hello")?.ok()?;
    ensure!(out.text() == "HELLO", "{out:?}");
    running.remove()
}

/// A command as a line for a shell.
fn quoted(command: &Command, quote: char) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| format!("{quote}{}{quote}", w.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn a_gibibyte_comes_through_byte_for_byte(c: &Containerd) -> Result<()> {
    let id = c.id("gib");
    let program = "yes 0123456789abcde | head -c 1073741824";
    let run_it = c.command(&["run", "--rm", "--runtime", HARDENED, IMAGE, &id, "sh", "-c", program]);
    let mut sum = Command::new("sh");
    sum.arg("-c").arg(format!("{} | sha256sum", quoted(&run_it, '\'')));
    let through = run(&mut sum, b"", Duration::from_secs(110))?.ok()?.text();
    let mut sum = Command::new("sh");
    sum.arg("-c").arg(format!("{program} | sha256sum"));
    ensure!(through == run(&mut sum, b"", Duration::from_secs(110))?.ok()?.text(), "{through}");
    Ok(())
}

fn the_last_bytes_before_the_exit_are_not_lost(c: &Containerd) -> Result<()> {
    for n in 0..10 {
        let size = 50_000 + n * 7919;
        let out = c.run(&[], &["sh", "-c", &format!("head -c {size} /dev/zero; printf END")])?.ok()?;
        ensure!(out.stdout.len() == size + 3 && out.stdout.ends_with(b"END"), "{} of {size}", out.stdout.len());
    }
    Ok(())
}

fn a_slow_reader_gets_everything(c: &Containerd) -> Result<()> {
    let id = c.id("slow");
    let run_it = c.command(&["run", "--rm", "--runtime", HARDENED, IMAGE, &id, "head", "-c", "3000000", "/dev/zero"]);
    let mut slow = Command::new("sh");
    slow.arg("-c").arg(format!("{} | (sleep 2; wc -c)", quoted(&run_it, '\'')));
    let out = run(&mut slow, b"", Duration::from_secs(60))?.ok()?;
    ensure!(out.text() == "3000000", "{out:?}");
    Ok(())
}

fn output_goes_to_a_file(c: &Containerd) -> Result<()> {
    let file = c.home().join(c.id("log"));
    let running = c.start_container(
        &["--log-uri", &format!("file://{}", file.display())],
        &["sh", "-c", "echo one; echo two >&2; exec sleep 1000"],
    )?;
    eventually("the file has both lines", || {
        std::fs::read_to_string(&file).is_ok_and(|t| t.contains("one\n") && t.contains("two\n"))
    })?;
    running.remove()
}

fn dev_stdout_can_be_opened_again(c: &Containerd) -> Result<()> {
    for user in ["0:0", "1000:1000"] {
        let out = c.run(&["--user", user], &["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"])?.ok()?;
        ensure!(out.text() == "out" && out.stderr.contains("err"), "as {user}: {out:?}");
    }
    Ok(())
}

/// A client opens its end while the request is on its way, and on a busy node after it.
fn output_waits_for_its_reader(c: &Containerd) -> Result<()> {
    let fifo = c.home().join(c.id("late"));
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success());
    let mut direct = Direct::start(c, "containerd-shim-hardened-v1", &c.spec(&["/bin/echo", "early"])?)?;
    direct.set_stdout(&fifo);
    let read = std::thread::scope(|scope| -> Result<String> {
        let reader = scope.spawn(|| -> Result<String> {
            std::thread::sleep(Duration::from_millis(300));
            let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo)?;
            let mut text = String::new();
            eventually("it is written", || file.read_to_string(&mut text).is_ok_and(|_| text == "early\n"))?;
            Ok(text)
        });
        direct.create_and_start(None)?;
        reader.join().ok().context("the reader panicked")?
    });
    direct.give_up()?;
    ensure!(read? == "early\n");
    Ok(())
}

fn a_container_without_streams_runs(c: &Containerd) -> Result<()> {
    let out = c.run(&["--null-io"], &["sh", "-c", "echo nobody reads; cat; exit 4"])?;
    ensure!(out.status == 4, "{out:?}");
    Ok(())
}

/// Runs `ctr` on a terminal of 33 rows and 77 columns; once it shows `shown`, `typed` is typed.
fn on_terminal(c: &Containerd, arguments: &[&str], shown: &str, typed: &str) -> Result<hardened_integration::Output> {
    let ctr = c.command(arguments);
    let transcript = c.home().join(c.id("transcript"));
    let mut script = Command::new("sh");
    script.env("TRANSCRIPT", &transcript).arg("-c").arg(format!(
        "touch $TRANSCRIPT
         (for i in $(seq 600); do grep -q '{shown}' $TRANSCRIPT && break; sleep 0.1; done; printf '{typed}') |
         script -qefc 'stty rows 33 cols 77; {}' $TRANSCRIPT",
        quoted(&ctr, '"').replace('\'', "'\\''")
    ));
    run(&mut script, b"", Duration::from_secs(60))
}

fn a_terminal_has_the_callers_size(c: &Containerd) -> Result<()> {
    let id = c.id("tty");
    // ctr tells the size once the program runs.
    let program = "for i in 1 2 3 4 5 6 7 8 9; do stty size | grep 33 && break; sleep 0.3; done; tty";
    let arguments = ["run", "--rm", "-t", "--runtime", HARDENED, IMAGE, &id, "sh", "-c", program];
    let out = on_terminal(c, &arguments, "/dev/pts/", "")?;
    ensure!(out.text().contains("33 77") && out.text().contains("/dev/pts/0"), "{out:?}");
    Ok(())
}

fn ctrl_c_interrupts_a_program_on_a_terminal(c: &Containerd) -> Result<()> {
    let id = c.id("intr");
    let arguments = [
        "run",
        "--rm",
        "-t",
        "--runtime",
        HARDENED,
        IMAGE,
        &id,
        "sh",
        "-c",
        "trap \\\"echo caught; exit 5\\\" INT; echo ready; while :; do sleep 0.1; done",
    ];
    let out = on_terminal(c, &arguments, "ready", "\\003")?;
    ensure!(out.text().contains("caught") && out.status == 5, "{out:?}");
    Ok(())
}

fn an_exec_gets_a_terminal_of_its_own(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let exec_id = c.id("exec");
    let arguments = ["tasks", "exec", "-t", "--exec-id", &exec_id, running.id(), "sh", "-c", "tty; exit 6"];
    let out = on_terminal(c, &arguments, "/dev/pts/", "")?;
    ensure!(out.text().contains("/dev/pts/0") && out.status == 6, "{out:?}");
    running.remove()
}

fn the_hosts_dev_null_keeps_its_owner(c: &Containerd) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    c.run(&["--null-io", "--user", "1000:1000"], &["true"])?.ok()?;
    let null = std::fs::metadata("/dev/null")?;
    ensure!((null.uid(), null.gid()) == (0, 0), "/dev/null belongs to {}:{}", null.uid(), null.gid());
    Ok(())
}

//! Real programs from Debian's packages, unmodified, started as their usual images start them and
//! serving real requests: under `baseline` all, and under `restricted` those that can.

use anyhow::{Context, Result, ensure};
use hardened_integration::{Containerd, eventually};

mod debian;
mod list;
mod page;
mod program;

use debian::Debian;
pub(crate) use list::PROGRAMS;
use program::{DEBIAN, locked, root};

crate::tests!(
    programs_of_every_release_run,
    the_page_lists_these_programs,
    abstract_sockets_are_shared_where_the_policy_says_so,
    what_programs_seldom_do_works_too,
);

fn the_page_lists_these_programs(_: &Containerd) -> Result<()> {
    page::lists(&PROGRAMS.iter().map(|program| program.name).collect::<Vec<_>>())
}

/// A new C library tries new system calls first, and takes ENOSYS for an answer, not EPERM; an old
/// one makes calls that nobody else makes any more.
fn programs_of_every_release_run(c: &Containerd) -> Result<()> {
    const COREUTILS: &str = "set -e; cd /tmp; seq 1000 | sort -rn | head -1 >a; cp --reflink=auto a b; mv b c; ln -s c d; \
        touch -d yesterday c; stat -c %s d >/dev/null; ls -la / >/dev/null; find /usr -name x; du -s /tmp >/dev/null; \
        timeout 5 sleep 0.1; nproc >/dev/null; date >/dev/null; df / >/dev/null; dd if=/dev/zero of=e bs=1k count=9 2>/dev/null; \
        truncate -s 1 e; mktemp >/dev/null; sync e; wc -c <e; id -u; echo $(cat a d) ${PIPESTATUS[0]}";
    const PERL: &str = "use strict; use Socket; use Fcntl; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; \
        my $pid = fork() // die; if (!$pid) { syswrite $b, qq(child); exit 3 } sysread $a, my $said, 9; waitpid $pid, 0; \
        local $SIG{ALRM} = sub { print qq(alarm ) }; alarm 1; select undef, undef, undef, 2; \
        open my $f, q(>), q(/tmp/p) or die; flock $f, 2 or die; print $f qq(x); close $f; utime 1, 1, q(/tmp/p) or die; \
        rename q(/tmp/p), q(/tmp/q) or die; chmod 0600, q(/tmp/q) or die; unlink q(/tmp/q) or die; \
        opendir my $d, q(/) or die; my @all = readdir $d; print qq($said ), $? >> 8, @all > 3 ? qq( works) : qq(), qq(\\n)";
    for release in ["bullseye", "bookworm", "trixie", "forky"] {
        for (user, start) in [("0", root("exec sleep 1000")), ("33", locked("exec sleep 1000").user("33:33"))] {
            let debian = Debian::mount(c, &format!("releases/{release}"))?;
            start.run(c, &debian)?;
            let run = |program: &[&str]| -> Result<String> {
                Ok(debian.exec(program)?.ok().with_context(|| format!("{release}: {program:?}"))?.text())
            };
            ensure!(run(&["bash", "-c", COREUTILS])? == format!("1\n{user}\n1000 1000 0"), "{release}: coreutils");
            ensure!(run(&["perl", "-e", PERL])? == "alarm child 3 works", "{release}: perl");
            ensure!(run(&["musl-program"])? == "musl works", "{release}: musl");
        }
    }
    Ok(())
}

/// Between an entrypoint and an exec: the one way out of docs/migration.md that takes a program which names such a socket.
fn abstract_sockets_are_shared_where_the_policy_says_so(c: &Containerd) -> Result<()> {
    const LISTEN: &str = r#"exec python3 -c "
import socket
s = socket.socket(socket.AF_UNIX)
s.bind(b'\0hardened')
s.listen()
open('/tmp/ready', 'w')
s.accept()""#;
    const CONNECT: &str = "import socket; socket.socket(socket.AF_UNIX).connect(b'\\0hardened'); print('connected')";
    let scoped = hardened_node::probe().landlock_abi >= 6;
    for grant in ["", "network.abstract-sockets = true"] {
        let debian = Debian::mount(c, DEBIAN)?;
        root(LISTEN).grant(grant).run(c, &debian)?;
        eventually("it listens", || debian.exec(&["test", "-e", "/tmp/ready"]).is_ok_and(|out| out.status == 0))
            .with_context(|| debian.log())?;
        let out = debian.exec(&["python3", "-c", CONNECT])?;
        let denied = grant.is_empty() && scoped;
        ensure!(
            if denied { out.stderr.contains("PermissionError") } else { out.text() == "connected" },
            "{grant}: {out:?}"
        );
    }
    Ok(())
}

/// What programs do now and then, and take no refusal of: copies with attributes, a program with a capability that the
/// container lacks, a message queue.
fn what_programs_seldom_do_works_too(c: &Containerd) -> Result<()> {
    const COPY: &str = "import os, shutil; open('/tmp/a', 'w'); shutil.copy2('/tmp/a', '/tmp/b'); \
        shutil.copytree('/etc/apt', '/tmp/apt'); shutil.move('/tmp/apt', '/tmp/moved'); print(sorted(os.listdir('/tmp')))";
    const QUEUE: &str = "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); \
        q = c.mq_open(b'/q', os.O_CREAT | os.O_RDWR, 0o600, None); \
        print(c.mq_send(q, b'x', 1, 0), os.strerror(ctypes.get_errno()) if q < 0 else '')";
    for (user, start) in [("root", root("exec sleep 1000")), ("www-data", locked("exec sleep 1000"))] {
        let debian = Debian::mount(c, DEBIAN)?;
        debian.build("cp /usr/bin/id /usr/local/bin/able; setcap cap_sys_admin+ep /usr/local/bin/able")?;
        start.run(c, &debian)?;
        let run = |program: &[&str]| -> Result<String> {
            Ok(debian.exec(program)?.ok().with_context(|| format!("{program:?}"))?.text())
        };
        ensure!(run(&["python3", "-c", COPY])? == "['a', 'b', 'moved']");
        ensure!(run(&["able", "-un"])? == user);
        let queue = run(&["python3", "-c", QUEUE])?;
        let expected = if user == "root" { "0" } else { "-1 Function not implemented" };
        ensure!(queue == expected, "{}: {queue}", user);
    }
    Ok(())
}

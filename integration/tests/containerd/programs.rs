//! Real programs from Debian's packages, unmodified and with Debian's defaults, serving real
//! requests under `baseline`; those that can, also under `restricted` as a user and with a
//! read-only root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hardened_integration::{Containerd, HARDENED, SHARED, has_selinux, repository, share};

crate::tests!(
    nginx_serves_a_page,
    redis_keeps_a_value,
    postgresql_is_initialised_and_queried,
    python_serves_a_file,
    node_serves_a_request,
    a_jvm_runs_a_program,
    apache_serves_a_page,
    memcached_keeps_a_value,
    mariadb_is_initialised_and_queried,
    busybox_cron_runs_its_job,
    programs_of_every_release_run,
);

/// `--annotation` for `restricted`, with a read-only root and a writable `/tmp`.
const RESTRICTED: &[&str] = &[
    "--annotation",
    "io.containerd.hardened.v1/profile=restricted",
    "--read-only",
    "--user",
    "33:33",
    "--mount",
    "type=tmpfs,src=tmpfs,dst=/tmp,options=mode=1777",
];

/// A Debian of `scripts/bootstrap`, with an upper layer of its own.
struct Debian<'a> {
    c: &'a Containerd,
    id: String,
    layer: PathBuf,
}

impl<'a> Debian<'a> {
    fn start(c: &'a Containerd, options: &[&str], program: &str) -> Result<Self> {
        Self::start_from(c, ".cache/programs", options, program)
    }

    fn start_from(c: &'a Containerd, lower: &str, options: &[&str], program: &str) -> Result<Self> {
        let id = c.id("debian");
        let layer = c.root().join(&id);
        let debian = Self { c, id, layer };
        let root = debian.layer.join("root");
        for folder in ["upper", "work", "root"] {
            std::fs::create_dir_all(debian.layer.join(folder))?;
        }
        let lower = repository().join(lower);
        let at = |folder: &str| debian.layer.join(folder).display().to_string();
        let mut data = format!("lowerdir={},upperdir={},workdir={}", lower.display(), at("upper"), at("work"));
        if has_selinux() {
            data += ",context=";
            data += SHARED;
        }
        let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &data]).arg(&root).status()?;
        ensure!(mounted.success(), "mount the Debian of scripts/bootstrap at {}", root.display());
        let root = root.display().to_string();
        let arguments =
            [&["run", "-d", "--runtime", HARDENED], options, &["--rootfs", &root, &debian.id, "sh", "-c", program]]
                .concat();
        c.ctr(&arguments)?.ok()?;
        Ok(debian)
    }

    /// What a program in the container prints, once it ends well.
    fn ask(&self, program: &str) -> Result<String> {
        let retry = format!("for i in $(seq 100); do out=$({program} 2>&1) && break; sleep 0.2; done; echo \"$out\"");
        let exec_id = self.c.id("ask");
        let out = self.c.ctr(&["tasks", "exec", "--exec-id", &exec_id, &self.id, "sh", "-c", &retry])?;
        Ok(out.ok()?.text())
    }

    fn expect(&self, program: &str, wanted: &str) -> Result<()> {
        let answer = self.ask(program)?;
        ensure!(answer.contains(wanted), "{program}: {answer}\n{}", self.ask("cat /tmp/log").unwrap_or_default());
        Ok(())
    }
}

impl Drop for Debian<'_> {
    fn drop(&mut self) {
        drop(self.c.ctr(&["tasks", "delete", "-f", &self.id]));
        drop(self.c.ctr(&["containers", "delete", &self.id]));
        drop(Command::new("umount").args(["-l"]).arg(self.layer.join("root")).status());
        drop(std::fs::remove_dir_all(&self.layer));
    }
}

/// Writes a file that a container is given.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    share(path)
}

fn nginx_serves_a_page(c: &Containerd) -> Result<()> {
    let nginx = Debian::start(c, &[], "exec nginx -g 'daemon off;' > /tmp/log 2>&1")?;
    nginx.expect("curl -sfI http://127.0.0.1/", "Server: nginx")?;
    // A reload signals init from an exec.
    nginx.ask("nginx -s reload")?;
    nginx.expect("curl -sfI http://127.0.0.1/", "Server: nginx")?;
    drop(nginx);
    let config = c.volume()?.join("nginx.conf");
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|p| format!("{p}_temp_path /tmp/{p};"));
    write(
        &config,
        &format!(
            "pid /tmp/pid; error_log /dev/stderr; events {{}} http {{ access_log /dev/stdout; {} \
             server {{ listen 8080; root /var/www/html; }} }}",
            places.join(" ")
        ),
    )?;
    let mount = format!("type=bind,src={},dst=/etc/nginx/nginx.conf,options=rbind:ro", config.display());
    let nginx = Debian::start(c, &[RESTRICTED, &["--mount", &mount]].concat(), "exec nginx -g 'daemon off;'")?;
    nginx.expect("curl -sfI http://127.0.0.1:8080/", "Server: nginx")
}

fn redis_keeps_a_value(c: &Containerd) -> Result<()> {
    let baseline = "exec redis-server /etc/redis/redis.conf --daemonize no > /tmp/log 2>&1";
    let restricted = "exec redis-server --dir /tmp --daemonize no > /tmp/log 2>&1";
    for (options, program) in [(&[][..], baseline), (RESTRICTED, restricted)] {
        let redis = Debian::start(c, options, program)?;
        redis.expect("redis-cli set greeting hello", "OK")?;
        redis.expect("redis-cli get greeting", "hello")?;
        redis.expect("redis-cli save", "OK")?;
        redis.expect("redis-cli bgsave", "Background saving started")?;
    }
    Ok(())
}

fn postgresql_is_initialised_and_queried(c: &Containerd) -> Result<()> {
    let program = "B=$(ls -d /usr/lib/postgresql/*/bin); D=$HOME/pg; $B/initdb -D $D > /tmp/log 2>&1 && \
                   exec $B/postgres -D $D -k /tmp >> /tmp/log 2>&1";
    let as_user = format!(
        "exec setpriv --reuid postgres --regid postgres --clear-groups env HOME=/var/lib/postgresql sh -c '{program}'"
    );
    let restricted = format!("export HOME=/tmp; {program}");
    for (options, program, user) in [(&[][..], as_user, "postgres"), (RESTRICTED, restricted, "www-data")] {
        let postgres = Debian::start(c, options, &program)?;
        let psql = format!("psql -h 127.0.0.1 -U {user} -Atc");
        postgres.expect(&format!("{psql} 'select 6*7' template1"), "42")?;
        postgres.expect(
            &format!("{psql} 'create table if not exists t as select g from generate_series(1,1000) g; select sum(g) from t' template1"),
            "500500",
        )?;
    }
    Ok(())
}

fn python_serves_a_file(c: &Containerd) -> Result<()> {
    for options in [&[][..], RESTRICTED] {
        let python = Debian::start(c, options, "cd /etc && exec python3 -m http.server 8000 > /tmp/log 2>&1")?;
        python.expect("curl -sf http://127.0.0.1:8000/debian_version", "12")?;
    }
    Ok(())
}

fn node_serves_a_request(c: &Containerd) -> Result<()> {
    let program = "exec node -e 'const c=require(\"crypto\");require(\"http\").createServer((q,r)=>\
                   c.pbkdf2(\"a\",\"b\",1000,16,\"sha256\",(e,k)=>r.end(\"node \"+k.length))).listen(8000)' > /tmp/log 2>&1";
    for options in [&[][..], RESTRICTED] {
        let node = Debian::start(c, options, program)?;
        node.expect("curl -sf http://127.0.0.1:8000/", "node 16")?;
    }
    Ok(())
}

fn a_jvm_runs_a_program(c: &Containerd) -> Result<()> {
    // Debian's headless JRE has no compiler, and brings programs of its own.
    for options in [&[][..], RESTRICTED] {
        let jvm = Debian::start(c, options, "sleep 1000")?;
        jvm.expect("java -Xmx128m -XX:+UseG1GC -version", "OpenJDK")?;
        jvm.expect("java -Xmx128m -m java.base/sun.security.tools.keytool.Main -genkeypair -alias a -keyalg RSA -dname CN=x -storepass secret -keystore /tmp/ks$$ && echo made", "made")?;
    }
    Ok(())
}

fn apache_serves_a_page(c: &Containerd) -> Result<()> {
    let apache = Debian::start(
        c,
        &[],
        "mkdir -p /run/lock /run/apache2; . /etc/apache2/envvars; exec apache2 -DFOREGROUND > /tmp/log 2>&1",
    )?;
    apache.expect("curl -sfI http://127.0.0.1/", "Server: Apache")
}

fn memcached_keeps_a_value(c: &Containerd) -> Result<()> {
    let talk = "python3 -c 'import socket; s=socket.create_connection((\"127.0.0.1\",11211)); \
                s.sendall(b\"set k 0 0 5\\r\\nhello\\r\\nget k\\r\\nquit\\r\\n\"); print(s.makefile().read())'";
    for (options, program) in [(&[][..], "exec memcached -u memcache"), (RESTRICTED, "exec memcached")] {
        let memcached = Debian::start(c, options, program)?;
        memcached.expect(talk, "hello")?;
    }
    Ok(())
}

fn mariadb_is_initialised_and_queried(c: &Containerd) -> Result<()> {
    let restricted = "mkdir /tmp/db && mariadb-install-db --auth-root-authentication-method=normal --datadir=/tmp/db > /tmp/log 2>&1; \
                      exec mariadbd --no-defaults --datadir=/tmp/db --socket=/tmp/s --pid-file=/tmp/p >> /tmp/log 2>&1";
    let baseline = "mkdir -p /run/mysqld && chown mysql /run/mysqld && exec mariadbd --user=mysql > /tmp/log 2>&1";
    let query = "-Ne 'create database if not exists d; create table if not exists d.t (a int) engine=innodb; insert into d.t values (42); select a from d.t limit 1'";
    for (options, program, client) in
        [(&[][..], baseline, "mariadb"), (RESTRICTED, restricted, "mariadb --no-defaults --socket=/tmp/s -u root")]
    {
        let mariadb = Debian::start(c, options, program)?;
        mariadb.expect(&format!("{client} {query}"), "42")?;
    }
    Ok(())
}

fn busybox_cron_runs_its_job(c: &Containerd) -> Result<()> {
    let program = "mkdir -p /var/spool/cron/crontabs && echo '* * * * * echo ran >> /tmp/cron' > /var/spool/cron/crontabs/root && \
                   exec busybox crond -f -l 0 > /tmp/log 2>&1";
    let cron = Debian::start(c, &[], program)?;
    // The next full minute is at most 60 s away.
    for _ in 0..4 {
        if cron.ask("cat /tmp/cron")?.contains("ran") {
            return Ok(());
        }
    }
    anyhow::bail!("no job ran: {}", cron.ask("cat /tmp/log")?)
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
        for options in [&[][..], RESTRICTED] {
            let lower = format!(".cache/releases/{release}");
            let debian = Debian::start_from(c, &lower, options, "exec sleep 1000")?;
            let run = |program: &[&str]| -> Result<String> {
                let id = c.id("release");
                let arguments = [&["tasks", "exec", "--exec-id", &id, &debian.id], program].concat();
                Ok(c.ctr(&arguments)?.ok().with_context(|| format!("{release}: {program:?}"))?.text())
            };
            let user = if options.is_empty() { "0" } else { "33" };
            ensure!(run(&["bash", "-c", COREUTILS])? == format!("1\n{user}\n1000 1000 0"), "{release}: coreutils");
            ensure!(run(&["perl", "-e", PERL])? == "alarm child 3 works", "{release}: perl");
            ensure!(run(&["musl-program"])? == "musl works", "{release}: musl");
        }
    }
    Ok(())
}

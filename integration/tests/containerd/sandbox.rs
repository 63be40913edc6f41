//! What a process in the sandbox can and cannot do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, RUNC, eventually, mount, repository, share};

crate::tests!(
    nothing_forbidden_succeeds,
    init_and_exec_get_the_same_sandbox,
    every_call_of_the_table_gets_the_profiles_answer,
    a_profile_of_the_spec_narrows_the_filter,
    containerds_default_profile_does_not_let_user_namespaces_through,
    system_folders_stay_writable_where_a_volume_is_mounted,
    a_volume_in_a_system_folder_is_listed_once,
    what_is_no_system_folder_is_the_images_to_write,
    read_only_mounts_stay_read_only,
    recursive_read_only_reaches_the_mounts_below,
    what_the_host_mounts_later_reaches_a_volume_that_asks_for_it,
    groups_and_umask_are_not_containerds,
    restricted_does_not_execute_from_writable_places,
    exec_cannot_look_into_init,
    no_descriptor_leaks,
    the_environment_is_the_specs_with_home_and_path,
    a_missing_working_directory_is_made_inside_the_root,
    masks_hold_whatever_the_image_puts_in_their_place,
    masks_are_followed_through_links_of_the_image,
    files_are_moved_and_linked_between_folders,
    signals_and_resources_are_as_usual,
    the_session_keyring_is_fresh,
    the_runtime_is_not_executed_by_an_entrypoint_of_proc_self_exe,
    modules_of_the_image_do_not_run_in_the_runtime,
    the_shim_is_one_static_binary,
);

const RESTRICTED: [&str; 2] = ["--annotation", "io.containerd.hardened.v1/profile=restricted"];

/// Verdicts by operation.
pub(crate) type Verdicts = BTreeMap<String, String>;

/// What the probe said.
fn verdicts(said: &str) -> Result<Verdicts> {
    said.lines()
        .map(|line| {
            let try_: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let name = try_["try"].as_str().context("no name")?.to_owned();
            Ok((name, format!("{} {}", try_["verdict"].as_str().unwrap_or_default(), try_["number"])))
        })
        .collect()
}

fn nothing_forbidden_succeeds(c: &Containerd) -> Result<()> {
    let mut table: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut note = |column: &str, verdicts: Verdicts| {
        for (name, verdict) in verdicts {
            table.entry(name).or_default().insert(column.to_owned(), verdict);
        }
    };
    for user in ["0:0", "1000:1000"] {
        let runc = c.run_under(RUNC, &["--seccomp", "--user", user], &["hardened-probe"], b"")?;
        note(&format!("runc {user}"), verdicts(&runc.ok()?.text())?);
        for (profile, options) in [("baseline", &[][..]), ("restricted", &RESTRICTED)] {
            let options = [options, &["--user", user]].concat();
            let init = verdicts(&c.run(&options, &["hardened-probe"])?.ok()?.text())?;
            let running = c.start_container(&options, &["sleep", "1000"])?;
            let exec = verdicts(&running.exec(&["hardened-probe"])?.ok()?.text())?;
            running.remove()?;
            for (place, verdicts) in [("init", init), ("exec", exec)] {
                ensure!(verdicts.len() >= 100, "only {} operations were tried", verdicts.len());
                let wrong = wrong(&verdicts);
                ensure!(wrong.is_empty(), "{place} as {user} under {profile}: {wrong:?}");
                if (profile, user) == ("baseline", "0:0") {
                    // What this kernel cannot deny is what SECURITY.md says, and all of that.
                    let open = verdicts.iter().filter(|(_, v)| v.starts_with("allowed")).map(|(name, _)| name.as_str());
                    ensure!(open.collect::<BTreeSet<_>>() == left_open());
                }
                note(&format!("{profile} {place} {user}"), verdicts);
            }
        }
    }
    // The contrast must be one: runc lets a good part through.
    let allowed = table.values().filter(|row| row.get("runc 0:0").is_some_and(|v| v.starts_with("allowed"))).count();
    ensure!(allowed >= 20, "runc as root allows only {allowed} of the operations");
    write_table(c, &table)
}

/// The table *operation × runtime × verdict*, whole.
fn write_table(c: &Containerd, table: &BTreeMap<String, BTreeMap<String, String>>) -> Result<()> {
    let columns: Vec<&String> = table.values().next().context("empty")?.keys().collect();
    let mut text = format!("operation\t{}\n", columns.iter().map(|c| c.as_str()).collect::<Vec<_>>().join("\t"));
    for (name, row) in table {
        let cells: Vec<&str> = columns.iter().map(|c| row.get(*c).map_or("-", String::as_str)).collect();
        text.push_str(&format!("{name}\t{}\n", cells.join("\t")));
    }
    let file = repository().join("target/integration").join(format!("verdicts-{}.tsv", c.generation().name()));
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn init_and_exec_get_the_same_sandbox(c: &Containerd) -> Result<()> {
    let show = "grep -E '^(Cap|NoNew|Seccomp)' /proc/self/status";
    for (options, capabilities) in [(&[][..], "00000000000005fb"), (&RESTRICTED, "0000000000000400")] {
        let init = c.run(options, &["sh", "-c", show])?.ok()?.text();
        let running = c.start_container(options, &["sleep", "1000"])?;
        let exec = running.exec(&["sh", "-c", show])?.ok()?.text();
        running.remove()?;
        ensure!(init == exec, "init:\n{init}\nexec:\n{exec}");
        for line in [
            "NoNewPrivs:\t1".to_owned(),
            "Seccomp:\t2".to_owned(),
            "Seccomp_filters:\t1".to_owned(),
            format!("CapBnd:\t{capabilities}"),
            format!("CapPrm:\t{capabilities}"),
            format!("CapEff:\t{capabilities}"),
            "CapInh:\t0000000000000000".to_owned(),
            "CapAmb:\t0000000000000000".to_owned(),
        ] {
            ensure!(init.contains(&line), "{line:?} is not in:\n{init}");
        }
    }
    Ok(())
}

/// Calls that are answered by more than the filter: they need no argument, or end the caller.
const UNANSWERED: [&str; 8] = ["exit", "exit_group", "rt_sigreturn", "fork", "vfork", "pause", "uprobe", "uretprobe"];

fn every_call_of_the_table_gets_the_profiles_answer(c: &Containerd) -> Result<()> {
    use hardened_sandbox::profile::BuiltIn;
    use hardened_sandbox::seccomp::{Action, Arch};

    let arch = Arch::native().context("no filter for this architecture")?;
    let free = c.run_under(RUNC, &[], &["hardened-probe", "every-call"], b"")?.ok()?.text();
    for (profile, options) in [(BuiltIn::Baseline, &[][..]), (BuiltIn::Restricted, &RESTRICTED)] {
        let filter = profile.seccomp(arch);
        let out = c.run(options, &["hardened-probe", "every-call"])?.ok()?.text();
        ensure!(out.lines().count() == 600, "{out}");
        for (line, unfiltered) in out.lines().zip(free.lines()) {
            let (number, errno) = line.split_once(' ').context("line")?;
            let number: u32 = number.parse()?;
            let name = arch.name(number).unwrap_or("none");
            if UNANSWERED.contains(&name) {
                continue;
            }
            match filter.decide(number, &[u64::MAX; 6]) {
                // The kernel's own answer; without rights it may be EPERM too, but never ENOSYS
                // for a call that it has.
                Action::Allow | Action::Log => {
                    ensure!(
                        errno != "38" || unfiltered.ends_with(" 38"),
                        "{name} ({number}) is allowed, and got ENOSYS"
                    );
                }
                Action::Errno(wanted) => {
                    ensure!(errno == wanted.to_string(), "{name} ({number}): {errno} instead of {wanted}");
                }
                Action::KillProcess | Action::KillThread | Action::Trap => anyhow::bail!("{name} kills"),
            }
        }
    }
    Ok(())
}

fn a_profile_of_the_spec_narrows_the_filter(c: &Containerd) -> Result<()> {
    let profile = c.home().join(c.id("profile.json"));
    let deny = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}],
    });
    fs::write(&profile, deny.to_string())?;
    let options = ["--seccomp", "--seccomp-profile", &profile.display().to_string()];
    // Its own denial holds, for exec too, and it gives nothing back: the mount API stays closed.
    let program = [
        "sh",
        "-c",
        "mkdir /tmp/x; hardened-probe 'mount tmpfs' 'unshare CLONE_NEWUSER'; grep filters /proc/self/status",
    ];
    let running = c.start_container(&options, &["sleep", "1000"])?;
    for out in [c.run(&options, &program)?, running.exec(&program)?] {
        ensure!(out.stderr.contains("Disk quota exceeded") || out.stderr.contains("Quota exceeded"), "{out:?}");
        ensure!(out.text().matches("\"denied\"").count() == 2, "{out:?}");
    }
    running.remove()
}

fn containerds_default_profile_does_not_let_user_namespaces_through(c: &Containerd) -> Result<()> {
    let out = c.run(&["--seccomp"], &["hardened-probe", "clone CLONE_NEWUSER", "unshare CLONE_NEWUSER", "clone3"])?;
    let verdicts = verdicts(&out.ok()?.text())?;
    ensure!(verdicts.values().all(|v| v.starts_with("denied")) && verdicts.len() == 3, "{verdicts:?}");
    Ok(())
}

fn system_folders_stay_writable_where_a_volume_is_mounted(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    let mount = |at: &str| format!("type=bind,src={},dst={at},options=rbind:rw", volume.display());
    let out = c.run(
        // The second lies behind a symbolic link of the image's.
        &["--mount", &mount("/usr/share/www"), "--mount", &mount("/evil/share/www2")],
        &["sh", "-c", "touch /usr/share/www/a /usr/share/www2/b && ! touch /usr/bin/c && ! touch /usr/d"],
    )?;
    out.ok()?;
    ensure!(volume.join("a").exists() && volume.join("b").exists());
    // Also at a system folder, and below one.
    let options = ["--mount", &mount("/usr/local/bin"), "--mount", &mount("/usr/bin/www")];
    c.run(&options, &["sh", "-c", "touch /usr/local/bin/c /usr/bin/www/d && ! touch /usr/bin/e"])?.ok()?;
    Ok(())
}

/// A conformance test reads a volume's size from `df`, and expects one line.
fn a_volume_in_a_system_folder_is_listed_once(c: &Containerd) -> Result<()> {
    let (outer, inner) = (c.volume()?, c.volume()?);
    fs::create_dir(outer.join("inner"))?;
    let mount = |from: &Path, at: &str| format!("type=bind,src={},dst={at},options=rbind:rw", from.display());
    let places = ["/usr/share/www", "/usr/share/www/inner", "/usr/bin/www", "/usr/local/www", "/usr/lib"];
    let mut options = Vec::new();
    for at in places {
        let from = if at.ends_with("inner") || at == "/usr/lib" { &inner } else { &outer };
        options.extend(["--mount".to_owned(), mount(from, at)]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let program =
        "cut -d ' ' -f 5 /proc/self/mountinfo && touch /usr/share/www/a /usr/share/www/inner/b /usr/bin/www/c";
    let listed = c.run(&options, &["sh", "-c", program])?.ok()?.text();
    for at in places {
        ensure!(listed.lines().filter(|line| *line == at).count() == 1, "{at}: {listed}");
    }
    ensure!(outer.join("a").exists() && inner.join("b").exists() && outer.join("c").exists());
    Ok(())
}

/// A conformance test makes a file in `/`, and so do programs whose working directory it is; servers below `/usr/local`
/// and `/usr/share` write beside their programs.
fn what_is_no_system_folder_is_the_images_to_write(c: &Containerd) -> Result<()> {
    // A hard link in another folder, as a file that is moved there: mv(1) would copy it instead.
    let program = "touch /new && mkdir /config && ln /new /config && mv /new /renamed && rm /renamed && mkdir -p /usr/share/nginx/html && \
                   touch /usr/share/nginx/html/x && chmod 700 /usr/share/nginx || exit 1; \
                   for f in chmod\\ 777 touch chown\\ 1; do $f /usr/bin/victim && exit 2; $f /usr && exit 3; done; \
                   mv /usr /was && exit 4; touch /usr/local/bin/x && exit 5; exit 0";
    c.run(&[], &["sh", "-c", program])?.ok()?;
    Ok(())
}

fn read_only_mounts_stay_read_only(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    let mount = format!("type=bind,src={},dst=/data,options=rbind:ro", volume.display());
    let program = "! touch /data/x && ! mount -o remount,rw /data && ! umount /data && ! touch /data/x";
    c.run(&["--mount", &mount], &["sh", "-c", program])?.ok()?;
    c.run(&["--read-only"], &["sh", "-c", "! touch /tmp/x && ! touch /x && touch /dev/shm/x"])?.ok()?;
    Ok(())
}

/// A spec for a shell with a volume at `/srv`, for a shim that the test starts itself.
fn with_volume(c: &Containerd, program: &str, volume: &Path, options: &[&str]) -> Result<serde_json::Value> {
    let mut config = c.spec(&["/bin/sh", "-c", program])?;
    let mount = serde_json::json!({"destination": "/srv", "type": "bind", "source": volume, "options": options});
    config["mounts"].as_array_mut().context("mounts")?.push(mount);
    Ok(config)
}

fn recursive_read_only_reaches_the_mounts_below(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    fs::create_dir(volume.join("below"))?;
    fs::create_dir(volume.join("other"))?;
    // A mount of its own below, in a mount namespace that ends with the program.
    let script = format!("mount --bind {0}/other {0}/below && exec \"$@\"", volume.display());
    let program = "touch /srv/below/x; sleep 1000";
    for (options, written) in [(["rbind", "rw"], true), (["rbind", "ro"], false), (["rbind", "rro"], false)] {
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let direct = Direct::start_under(
            c,
            "containerd-shim-hardened-v1",
            &with_volume(c, program, &volume, &options)?,
            &wrapper,
        )?;
        direct.create_and_start(None)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let below = format!("/proc/{}/root/srv/below/x", direct.pid()?);
        ensure!(Path::new(&below).exists() == written, "{options:?}");
        drop(fs::remove_file(&below));
        direct.end()?;
    }
    Ok(())
}

/// `mountPropagation: HostToContainer`.
fn what_the_host_mounts_later_reaches_a_volume_that_asks_for_it(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    fs::create_dir(volume.join("below"))?;
    let show = volume.display().to_string();
    // All of it is unmounted again with this containerd's folder.
    mount(&["--bind", &show, &show])?;
    mount(&["--make-shared", &show])?;
    let start = |propagation: &str| {
        let option = format!("type=bind,src={show},dst=/srv,options=rbind:{propagation}");
        c.start_container(&["--mount", &option], &["sleep", "1000"])
    };
    let (slave, private) = (start("rslave")?, start("rprivate")?);
    mount(&["-t", "tmpfs", "t", &format!("{show}/below")])?;
    fs::write(volume.join("below/later"), "")?;
    let program = ["ls", "/srv/below/later"];
    ensure!(slave.exec(&program)?.status == 0, "it was not seen");
    ensure!(private.exec(&program)?.status != 0, "it was seen where nobody asked for it");
    private.remove()?;
    slave.remove()?;
    for at in [format!("{show}/below"), show] {
        ensure!(Command::new("umount").arg(&at).status()?.success(), "umount {at}");
    }
    Ok(())
}

fn groups_and_umask_are_not_containerds(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    let program = "(grep Groups /proc/self/status; umask) > /srv/found; mv /srv/found /srv/done; sleep 1000";
    let mut config = with_volume(c, program, &volume, &["rbind", "rw"])?;
    config["process"]["user"] = serde_json::json!({"uid": 0, "gid": 0});
    let wrapper = ["setpriv", "--groups", "4242", "sh", "-c", "umask 077; exec \"$@\"", "sh"];
    let direct = Direct::start_under(c, "containerd-shim-hardened-v1", &config, &wrapper)?;
    direct.create_and_start(None)?;
    eventually("it has said all", || volume.join("done").exists())?;
    let found = fs::read_to_string(volume.join("done"))?;
    direct.end()?;
    ensure!(found.split_whitespace().eq(["Groups:", "0022"]), "{found}");
    Ok(())
}

fn restricted_does_not_execute_from_writable_places(c: &Containerd) -> Result<()> {
    let mount = |volume: PathBuf| format!("type=bind,src={},dst=/srv/data,options=rbind:rw", volume.display());
    let program = "for d in /tmp /var/tmp /dev/shm /srv/data; do cp /bin/busybox $d/echo && $d/echo ran $d; done; \
                   echo end; /bin/echo from the image";
    let data = mount(c.volume()?);
    let out = c.run(&[&RESTRICTED[..], &["--mount", &data]].concat(), &["sh", "-c", program])?;
    ensure!(!out.text().contains("ran") && out.text().ends_with("end\nfrom the image"), "{out:?}");
    // Nor by a loader that maps the program, which Landlock does not see.
    let flags = "for d in /tmp /var/tmp; do grep \" $d \" /proc/self/mountinfo | grep -q noexec && echo $d; done";
    let out = c.run(&RESTRICTED, &["sh", "-c", flags])?;
    ensure!(out.text() == "/tmp\n/var/tmp", "{out:?}");
    // The default lets it: build tools and self-extracting programs do it.
    let out = c.run(&["--mount", &mount(c.volume()?)], &["sh", "-c", program])?.ok()?;
    ensure!(out.text().contains("ran /tmp") && out.text().contains("ran /srv/data"), "{out:?}");
    Ok(())
}

fn exec_cannot_look_into_init(c: &Containerd) -> Result<()> {
    let running = c.start_container(&["--env", "SECRET=x"], &["sleep", "1000"])?;
    let program = "for f in environ root/etc exe cwd maps; do ls /proc/1/$f >/dev/null 2>&1 && cat /proc/1/$f \
                   >/dev/null 2>&1 && echo open $f; done; kill -0 1 && echo signals";
    let out = running.exec(&["sh", "-c", program])?;
    ensure!(out.text() == "signals", "{out:?}");
    running.remove()
}

fn no_descriptor_leaks(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "ls -l /proc/1/fd; exec sleep 1000"])?;
    let init = fs::read_dir(format!("/proc/{}/fd", running.pid()?))?.count();
    ensure!(init == 3, "init has {init} descriptors");
    let out = running.exec(&["sh", "-c", "ls -l /proc/self/fd 2>/dev/null; true"])?.ok()?;
    // The folder that ls lists is a fourth, and closed by the time that it looks where it leads.
    ensure!(out.text().lines().filter(|l| l.contains("->")).count() == 3, "{}", out.text());
    running.remove()
}

fn the_environment_is_the_specs_with_home_and_path(c: &Containerd) -> Result<()> {
    let out = c.run(&["--env", "A=1=2", "--user", "1000:1000"], &["env"])?.ok()?;
    let lines: Vec<String> = out.text().lines().map(str::to_owned).collect();
    for line in ["A=1=2", "HOME=/home/user", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] {
        ensure!(lines.iter().any(|l| l == line), "{line} is not in {lines:?}");
    }
    ensure!(!lines.iter().any(|l| l.contains("LISTEN_FDS") || l.contains("TTRPC")), "{lines:?}");
    Ok(())
}

fn a_missing_working_directory_is_made_inside_the_root(c: &Containerd) -> Result<()> {
    let out = c.run(&["--cwd", "/srv/new/folder"], &["pwd"])?.ok()?;
    ensure!(out.text() == "/srv/new/folder", "{out:?}");
    // Through the image's symbolic link it lands in the container's /usr, not in the host's.
    let name = c.id("made");
    let out = c.run(&["--cwd", &format!("/evil/{name}")], &["ls", "-d", &format!("/usr/{name}")])?.ok()?;
    ensure!(out.text() == format!("/usr/{name}"), "{out:?}");
    ensure!(!std::path::Path::new("/usr").join(name).exists());
    Ok(())
}

/// CVE-2023-27561, CVE-2023-28642, CVE-2025-31133, CVE-2025-54867: an image that puts symbolic
/// links where the runtime mounts and masks.
/// A root file system of its own, with the probe and what it looks for.
pub(crate) fn small_image(c: &Containerd) -> Result<PathBuf> {
    let image = c.rootfs()?;
    let root = c.home().join(c.id("root"));
    fs::create_dir_all(&root)?;
    for name in ["bin", "usr/bin", "etc", "lib", "proc", "sys", "dev", "tmp", "run"] {
        fs::create_dir_all(root.join(name))?;
    }
    for program in ["bin/busybox", "bin/hardened-probe", "usr/bin/victim"] {
        fs::copy(image.join(program), root.join(program))?;
    }
    share(&root)?;
    Ok(root)
}

/// What succeeded of all that the probe tried.
pub(crate) fn allowed(said: &str) -> Result<Verdicts> {
    Ok(wrong(&verdicts(said)?))
}

/// Forbidden operations that were allowed, and that this kernel has the means to deny.
fn wrong(verdicts: &Verdicts) -> Verdicts {
    let open = left_open();
    let wrong = verdicts.iter().filter(|(name, v)| v.starts_with("allowed") && !open.contains(name.as_str()));
    wrong.map(|(name, verdict)| (name.clone(), verdict.clone())).collect()
}

/// What root in a container can do for want of a feature of this kernel.
fn left_open() -> BTreeSet<&'static str> {
    let missing: BTreeSet<&str> = hardened_node::probe().missing().map(|feature| feature.name).collect();
    [("vm.memfd_noexec", "execute from a memfd"), ("vm.memfd_noexec", "make an executable memfd")]
        .into_iter()
        .filter(|(feature, _)| missing.contains(feature))
        .map(|(_, operation)| operation)
        .collect()
}

fn masks_hold_whatever_the_image_puts_in_their_place(c: &Containerd) -> Result<()> {
    for (at, to) in [
        ("proc", "/tmp"),
        ("proc", "/evil"),
        ("sys", "/proc"),
        ("dev", "/proc"),
        ("dev/null", "/proc/interrupts"),
        ("dev/pts", "/proc"),
        ("dev/ptmx", "/proc/sysrq-trigger"),
        ("dev/console", "/proc/sysrq-trigger"),
        ("dev/shm", "/proc/sys"),
    ] {
        let root = small_image(c)?;
        if root.join(at).exists() {
            fs::remove_dir(root.join(at))?;
        }
        std::os::unix::fs::symlink(to, root.join(at))?;
        let out = crate::refusals::spec(c, |s| {
            s["root"] = serde_json::json!({"path": root});
            s["process"]["args"] = serde_json::json!(["/bin/hardened-probe"]);
        })?
        .run()?;
        // Refusing such an image is as good.
        if out.status == 0 {
            let wrong = allowed(&out.ok()?.text())?;
            ensure!(wrong.is_empty(), "/{at} -> {to}: {wrong:?}");
        }
    }
    Ok(())
}

fn signals_and_resources_are_as_usual(c: &Containerd) -> Result<()> {
    let out = c.run(&[], &["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"])?.ok()?.text();
    ensure!(out == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000", "{out}");
    Ok(())
}

fn the_session_keyring_is_fresh(c: &Containerd) -> Result<()> {
    // Readable from outside only: keyctl is denied inside. The link is in /proc/keys of init's user.
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let out = running.exec(&["hardened-probe", "keyctl", "add_key", "request_key"])?;
    ensure!(verdicts(&out.ok()?.text())?.values().all(|v| v == "denied 1"));
    running.remove()
}

fn the_runtime_is_not_executed_by_an_entrypoint_of_proc_self_exe(c: &Containerd) -> Result<()> {
    let before = fs::read(c.home().join("bin/containerd-shim-hardened-v1"))?;
    for program in [&["/proc/self/exe", "-v"][..], &["/proc/self/exe"]] {
        let out = c.run(&[], program)?;
        ensure!(out.status != 0 && !out.text().contains("containerd-shim"), "{out:?}");
    }
    ensure!(fs::read(c.home().join("bin/containerd-shim-hardened-v1"))? == before, "the host's binary changed");
    Ok(())
}

/// The image's `nsswitch.conf` names a module that would leave a mark when it is loaded.
fn modules_of_the_image_do_not_run_in_the_runtime(c: &Containerd) -> Result<()> {
    let out = c.run(&["--user", "4711:4711"], &["sh", "-c", "ls /tmp /var/tmp; env | grep HOME"])?.ok()?;
    ensure!(out.text() == "/tmp:\n\n/var/tmp:\nHOME=/", "{out:?}");
    Ok(())
}

fn the_shim_is_one_static_binary(c: &Containerd) -> Result<()> {
    let binary = fs::read(c.home().join("bin/containerd-shim-hardened-v1"))?;
    // An interpreter is what makes a binary dynamic.
    let dynamic = binary.windows(9).any(|w| w == b"/ld-linux" || w == b"/lib/ld-m");
    ensure!(!dynamic, "the shim has a dynamic loader");
    Ok(())
}

/// `/evil` is a link to `/usr`.
fn masks_are_followed_through_links_of_the_image(c: &Containerd) -> Result<()> {
    let mut spec = c.spec(&["/bin/sleep", "1000"])?;
    spec["root"]["path"] = c.rootfs()?.display().to_string().into();
    let add = |list: &mut serde_json::Value, path: &str| list.as_array_mut().map(|list| list.push(path.into()));
    add(&mut spec["linux"]["maskedPaths"], "/evil/bin/victim").context("no list")?;
    add(&mut spec["linux"]["readonlyPaths"], "/evil/share").context("no list")?;
    let running = c.start_spec(&spec)?;
    running.exec(&["sh", "-c", "test ! -s /usr/bin/victim && test ! -s /evil/bin/victim"])?.ok()?;
    let written = running.exec(&["touch", "/usr/share/x"])?;
    ensure!(written.stderr.contains("Read-only file system"), "{written:?}");
    running.remove()
}

/// rename(2) and link(2) themselves: `mv` copies where they fail. Each Landlock domain denies it that restricts no files,
/// so none is entered before the container's own.
fn files_are_moved_and_linked_between_folders(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    let mount = format!("type=bind,src={},dst=/data,options=rbind:rw", volume.display());
    let program = "set -e; for at in /tmp /data /dev/shm /home; do rm -rf $at/a $at/b; mkdir -p $at/a $at/b; echo x >$at/a/x; \
                   hardened-probe move $at/a/x $at/b/x; done; echo moved";
    for annotation in ["io.containerd.hardened.v1/profile=baseline", "io.containerd.hardened.v1/profile=restricted"] {
        let options = ["--annotation", annotation, "--mount", &mount];
        let moved = c.run(&options, &["sh", "-c", program])?.ok()?.text();
        ensure!(moved == "moved", "{annotation}, by an entrypoint: {moved}");
        let running = c.start_container(&options, &["sleep", "1000"])?;
        ensure!(running.exec(&["sh", "-c", program])?.ok()?.text() == "moved", "{annotation}, by an exec");
        running.remove()?;
    }
    Ok(())
}

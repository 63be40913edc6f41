//! The programs that a command runs, as far as it can be told without running it: through shells' scripts and wrappers.

/// Shells, whose `-c` is followed by a script.
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "ksh", "zsh"];

/// Words before a program, and how many words they take themselves.
const WRAPPERS: &[(&str, usize)] = &[
    ("!", 0),
    ("catatonit", 0),
    ("command", 0),
    ("do", 0),
    ("doas", 0),
    ("dumb-init", 0),
    ("elif", 0),
    ("else", 0),
    ("env", 0),
    ("exec", 0),
    ("gosu", 1),
    ("if", 0),
    ("nice", 0),
    ("nohup", 0),
    ("setsid", 0),
    ("stdbuf", 0),
    ("su-exec", 1),
    ("sudo", 0),
    ("then", 0),
    ("time", 0),
    ("timeout", 1),
    ("tini", 0),
    ("until", 0),
    ("while", 0),
    ("{", 0),
];

/// Programs that write to the last of their arguments.
const TO_THE_LAST: &[&str] = &["cp", "install", "ln", "mv"];

/// Programs that write to each path that they are given.
const TO_EACH: &[&str] = &["chgrp", "chmod", "chown", "rm", "tee", "touch", "truncate"];

/// Programs that write to what follows an option.
const TO_AN_OPTION: &[(&str, char)] = &[("curl", 'o'), ("wget", 'O')];

/// Wrappers and shells in each other are followed as far as this. A manifest is foreign: it can have thousands.
const DEEPEST: usize = 32;

/// The name of a program, without its folder.
pub(super) fn name_of(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Commands with their arguments: the program comes first. A wrapper is a command too, and is followed by what it runs.
pub(super) fn simple(arguments: &[String]) -> Vec<Vec<&str>> {
    let mut all = Vec::new();
    collect(arguments.iter().map(String::as_str).collect(), DEEPEST, &mut all);
    all
}

fn collect<'a>(words: Vec<&'a str>, deeper: usize, all: &mut Vec<Vec<&'a str>>) {
    let Some(deeper) = deeper.checked_sub(1) else { return };
    let is_assignment = |word: &str| word.split_once('=').is_some_and(|(name, _)| !name.contains(['/', '-']));
    let words: Vec<&str> = words.into_iter().skip_while(|word| is_assignment(word)).collect();
    let Some((first, rest)) = words.split_first().filter(|(first, _)| !first.starts_with('#')) else { return };
    let name = name_of(first);
    if let Some((_, operands)) = WRAPPERS.iter().find(|(wrapper, _)| *wrapper == name) {
        let run = rest.iter().copied().skip_while(|word| word.starts_with('-')).skip(*operands).collect();
        all.push(words);
        return collect(run, deeper, all);
    }
    let script = rest.iter().position(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'));
    if let Some(script) = script.filter(|_| SHELLS.contains(&name)).and_then(|at| rest.get(at + 1)) {
        for command in script.split([';', '|', '&', '(', ')', '`', '\n']) {
            let quoted = |c| matches!(c, '\'' | '"');
            collect(command.split_whitespace().map(|word| word.trim_matches(quoted)).collect(), deeper, all);
        }
        return;
    }
    all.push(words);
}

/// The paths that a command writes to.
pub(super) fn written<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let Some((program, arguments)) = words.split_first() else { return Vec::new() };
    let program = name_of(program);
    let mut paths: Vec<&str> = Vec::new();
    for (at, word) in arguments.iter().enumerate() {
        let next = arguments.get(at + 1).copied();
        if let Some(target) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('>') {
            let target = target.trim_start_matches('>');
            paths.extend(if target.is_empty() { next } else { Some(target) });
        }
        let option = TO_AN_OPTION.iter().find(|(of, _)| *of == program).map(|(_, option)| *option);
        if option.is_some_and(|option| word.starts_with('-') && !word.starts_with("--") && word.ends_with(option)) {
            paths.extend(next);
        }
    }
    let before = arguments.iter().take_while(|word| !word.contains('>')).copied();
    if TO_THE_LAST.contains(&program) {
        paths.extend(before.last());
    } else if TO_EACH.contains(&program) {
        paths.extend(before);
    }
    // What a variable stands for, or `..` leads to, is not known here.
    paths.retain(|path| path.starts_with('/') && !path.contains('$') && !path.split('/').any(|part| part == ".."));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        simple(&arguments).iter().map(|words| name_of(words[0]).to_owned()).collect()
    }

    #[test]
    fn programs_are_found_behind_shells_and_wrappers() {
        assert_eq!(programs(&["/usr/sbin/sshd", "-D"]), ["sshd"]);
        assert_eq!(programs(&["tini", "--", "gosu", "www-data", "nginx"]), ["tini", "gosu", "nginx"]);
        let script =
            "set -e; X=1 mount -t tmpfs x /x && if ! ping -c1 a; then echo 'su mount'; fi\n# strace\nexec sudo id";
        let found = ["set", "mount", "if", "!", "ping", "then", "echo", "fi", "exec", "sudo", "id"];
        assert_eq!(programs(&["/bin/bash", "-ec", script]), found);
        assert_eq!(programs(&["tini", "--", "sh", "-c", "timeout -k 1 5 strace ls"])[2..], ["5"], "an option's value");
        assert_eq!(programs(&["timeout", "5", "sh", "-c", "(a|b)"]), ["timeout", "a", "b"]);
        assert_eq!(programs(&["sh", "/entrypoint.sh", "mount"]), ["sh"]);
        for nothing in [&[][..], &["A=b"], &["sh", "-c"], &["sh", "-c", " ;; "]] {
            assert!(programs(nothing).is_empty() || programs(nothing) == ["sh"], "{nothing:?}");
        }
    }

    #[test]
    fn wrappers_without_end_are_not_followed() {
        let wrapped = [vec!["env"; 100_000], vec!["strace"]].concat();
        assert_eq!(programs(&wrapped), vec!["env"; DEEPEST]);
        let scripts = vec!["sh -c"; 100_000].join(" ");
        assert_eq!(programs(&["sh", "-c", &scripts]), ["sh"], "a word is no script");
    }

    #[test]
    fn what_is_written_is_found() {
        for (command, paths) in [
            ("cp /usr/bin/a /usr/bin/b /tmp", &["/tmp"][..]),
            ("chmod +x /usr/bin/a b", &["/usr/bin/a"]),
            ("curl -sSLo /usr/bin/a https://example.org", &["/usr/bin/a"]),
            ("wget -O /a -q x", &["/a"]),
            ("echo x >/a 2>> /b", &["/a", "/b"]),
            ("tee /a > /dev/null", &["/dev/null", "/a"]),
            ("cat /usr/bin/a", &[]),
            ("cp a $HOME/x", &[]),
            ("rm /tmp/../usr/bin/a", &[]),
            ("", &[]),
        ] {
            let words: Vec<&str> = command.split_whitespace().collect();
            assert_eq!(written(&words), paths, "{command}");
        }
    }
}

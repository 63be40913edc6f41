//! The modules of each crate have an order: none imports itself by way of others.
#![allow(clippy::disallowed_methods, reason = "reads the sources, as a test; what decides reads nothing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Folders of crates, from the workspace's. Of programs with one file each there is nothing to tell.
const CRATES: [&str; 8] = [
    "sandbox/src",
    "sandbox/lockdown/src",
    "sandbox/node/src",
    "sandbox/prove/src",
    "shim/src",
    "hardenctl/src",
    "integration/src",
    "integration/probe/src",
];

/// The names of a module from its crate's root, or those of a path.
type Names = Vec<String>;

/// Which other ones each of the modules in one parent imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_module_imports_itself_by_way_of_others() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut circles = Vec::new();
    for folder in CRATES {
        let mut modules = BTreeMap::new();
        read(&workspace.join(folder), &[], &mut modules);
        assert!(!modules.is_empty(), "{folder} has no modules");
        circles.extend(circles_in(&modules).iter().map(|circle| format!("{folder}: {circle}")));
    }
    assert!(circles.is_empty(), "circles of imports:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_and_named() {
    let texts = [
        (vec![], "use crate::a::A; mod a; mod b;"),
        (vec!["a"], "//! crate::a::d\nuse crate::{b::{self, c::C}, unknown};"),
        (vec!["b"], "use self::c::C; fn f() { vec![super::d::new(\"crate::a\")]; }"),
        (vec!["b", "c"], "use super::B;"),
        (vec!["d"], "pub use super::a::A; #[cfg(test)] mod tests { use super::super::e; }"),
        (vec!["e"], "use crate::d;"),
    ];
    let modules = texts.map(|(names, text)| (names.into_iter().map(str::to_owned).collect(), text.parse().unwrap()));
    assert_eq!(circles_in(&modules.into()), ["a -> b -> d -> a"]);
}

/// Reads the modules of a folder and of those in it, but for programs.
fn read(folder: &Path, parent: &[String], modules: &mut BTreeMap<Names, TokenStream>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let child = [parent, &[name.to_owned()]].concat();
        if path.is_dir() {
            if name != "bin" && !path.join("main.rs").exists() {
                read(&path, &child, modules);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = if matches!(name, "lib" | "main" | "mod") { parent.to_vec() } else { child };
            modules.insert(module, fs::read_to_string(&path).unwrap().parse().unwrap());
        }
    }
}

/// What a module uses of its own ancestors and descendants counts for nothing: they are one.
fn circles_in(modules: &BTreeMap<Names, TokenStream>) -> Vec<String> {
    let mut parents: BTreeMap<Names, Imports> = BTreeMap::new();
    for (module, text) in modules {
        let mut paths = Vec::new();
        collect(text.clone(), &mut paths);
        for path in paths {
            let mut used = absolute(module, &path);
            while !used.is_empty() && !modules.contains_key(&used) {
                used.pop();
            }
            let common = module.iter().zip(&used).take_while(|(own, other)| own == other).count();
            if let (Some(own), Some(other)) = (module.get(common), used.get(common)) {
                let imports = parents.entry(module[..common].to_vec()).or_default();
                imports.entry(own.clone()).or_default().insert(other.clone());
            }
        }
    }
    let mut found = Vec::new();
    for (parent, imports) in &parents {
        let mut seen = BTreeSet::new();
        for start in imports.keys() {
            let Some(circle) = circle(start, imports).filter(|circle| seen.is_disjoint(&circle.iter().collect()))
            else {
                continue;
            };
            let names = circle.iter().chain([start]).map(|name| [parent, &[name.clone()][..]].concat().join("::"));
            found.push(names.collect::<Vec<_>>().join(" -> "));
            seen.extend(imports.keys().filter(|name| circle.contains(name)));
        }
    }
    found
}

/// The shortest way from a module back to itself.
fn circle(start: &String, imports: &Imports) -> Option<Names> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().and_then(|last| imports.get(last)).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next) {
                    longer.push([&way[..], std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// A path that begins with `crate`, `super` or `self`, from the crate's root.
fn absolute(module: &[String], path: &[String]) -> Names {
    let mut at = if path[0] == "crate" { Names::new() } else { module.to_vec() };
    for name in path {
        match name.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            _ => at.push(name.clone()),
        }
    }
    at
}

/// The paths in a text, but for those of its tests, comments and strings.
fn collect(text: TokenStream, paths: &mut Vec<Names>) {
    let tokens: Vec<TokenTree> = text.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if is_test_module(&tokens[at..]) {
            at += 5;
            continue;
        }
        match token {
            TokenTree::Group(group) => collect(group.stream(), paths),
            TokenTree::Ident(name) if ["crate", "self", "super"].iter().any(|first| name == first) => {
                tree(&tokens[at..], &[], paths);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

/// Whether these are `#[cfg(test)] mod NAME { ... }`, five trees.
fn is_test_module(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), TokenTree::Ident(word), _, TokenTree::Group(_), ..] =
        tokens
    else {
        return false;
    };
    let attribute = attribute.stream().to_string().replace(' ', "");
    hash.as_char() == '#' && attribute == "cfg(test)" && word == "mod"
}

/// The paths of a tree of `use`, or one path of an expression.
fn tree(tokens: &[TokenTree], prefix: &[String], paths: &mut Vec<Names>) {
    let mut path = prefix.to_vec();
    let mut rest = tokens;
    loop {
        match rest {
            [TokenTree::Ident(name), ..] => path.push(name.to_string()),
            [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Brace => {
                let parts: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(sign) if sign.as_char() == ',');
                return parts.split(is_comma).for_each(|part| tree(part, &path, paths));
            }
            _ => break,
        }
        match &rest[1..] {
            [TokenTree::Punct(one), TokenTree::Punct(two), next @ ..]
                if [one, two].iter().all(|p| p.as_char() == ':') =>
            {
                rest = next;
            }
            _ => break,
        }
    }
    paths.push(path);
}

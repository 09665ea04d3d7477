use std::collections::HashMap;

use super::*;

fn confinement(entries: &[(&str, Reach, bool)]) -> Confinement {
    let path = |(path, access, optional): &(&str, Reach, bool)| ConfinedPath {
        path: path.as_bytes().to_vec().into(),
        access: *access,
        optional: *optional,
    };
    Confinement {
        network: false,
        paths: entries.iter().map(path).collect(),
    }
}

/// A file system of links, and of paths that are not there.
fn planned(
    entries: &[(&str, Reach, bool)],
    links: &[(&str, &str)],
    missing: &[&str],
) -> Result<Vec<(String, Reach, bool)>, Unenforceable> {
    let links: HashMap<&Path, &Path> = links
        .iter()
        .map(|(at, to)| (Path::new(*at), Path::new(*to)))
        .collect();
    let look = |path: &Path| {
        Ok(if missing.iter().any(|gone| path == Path::new(gone)) {
            Seen::Nothing
        } else {
            links
                .get(path)
                .map_or(Seen::Thing, |to| Seen::Link((*to).to_owned()))
        })
    };
    let mounts = mounts(&confinement(entries), &look)?;
    let text = |mount: Mount| {
        (
            mount.path.to_string_lossy().into_owned(),
            mount.access,
            mount.optional,
        )
    };
    Ok(mounts.into_iter().map(text).collect())
}

use Reach::{Read, Write};

fn mount(path: &str, access: Reach) -> (String, Reach, bool) {
    (path.into(), access, false)
}

#[test]
fn what_is_written_and_what_is_protected_in_it_is_mounted_from_the_root_downwards() {
    let entries = [
        ("/w/.git", Read, true),
        ("/tmp", Write, false),
        ("/w", Write, false),
        ("/", Read, false),
    ];
    let wanted = vec![
        mount("/", Read),
        mount("/tmp", Write),
        mount("/w", Write),
        ("/w/.git".into(), Read, true),
    ];
    assert_eq!(planned(&entries, &[], &[]), Ok(wanted.clone()));
    assert_eq!(
        planned(&entries, &[], &["/w/.git"]),
        Ok(wanted),
        "it may come any moment"
    );
}

#[test]
fn what_holds_already_is_not_mounted_again() {
    let entries = [
        ("/", Read, false),
        ("/usr", Read, false),
        ("/tmp", Write, false),
        ("/tmp/w", Write, false),
    ];
    assert_eq!(
        planned(&entries, &[], &[]),
        Ok(vec![mount("/", Read), mount("/tmp", Write)])
    );
    // The control: between them is something else.
    let apart = [
        ("/", Read, false),
        ("/tmp", Write, false),
        ("/tmp/a", Read, false),
        ("/tmp/a/w", Write, false),
    ];
    assert_eq!(planned(&apart, &[], &[]).unwrap().len(), 4);
}

#[test]
fn a_link_that_commands_could_have_made_is_refused_and_any_other_is_followed() {
    let entries = [
        ("/", Read, false),
        ("/tmp", Write, false),
        ("/home/w", Write, false),
        ("/home/w/.git", Read, true),
    ];
    let real = [("/home", "var/home")];
    assert_eq!(
        planned(&entries, &real, &[]),
        Ok(vec![
            mount("/", Read),
            mount("/tmp", Write),
            mount("/var/home/w", Write),
            ("/var/home/w/.git".into(), Read, true),
        ])
    );
    for theirs in [("/home/w/.git", "/etc"), ("/home", "/tmp/home")] {
        let through = [theirs, ("/tmp/home", "/etc")];
        assert_eq!(
            planned(&entries, &through, &[]),
            Err(Unenforceable::Link),
            "{theirs:?}"
        );
    }
    // What may be written is known only when another path was followed.
    let late = [
        ("/", Read, false),
        ("/x/l/w", Write, false),
        ("/a/b/c/d", Write, false),
    ];
    let links = [("/a/b/c/d", "/x"), ("/x/l", "/etc")];
    assert_eq!(planned(&late, &links, &[]), Err(Unenforceable::Link));
    assert!(planned(&late, &links[1..], &[]).is_ok(), "the control");
    let round = [("/tmp2", "/tmp3"), ("/tmp3", "/tmp2")];
    assert_eq!(
        planned(&[("/tmp2", Write, false)], &round, &[]),
        Err(Unenforceable::Link)
    );
}

#[test]
fn what_is_missing_is_refused_where_a_command_could_make_it() {
    let protected = [("/", Read, false), ("/w", Write, false), ("/w/.git", Read, false)];
    assert_eq!(
        planned(&protected, &[], &["/w/.git"]),
        Err(Unenforceable::Missing)
    );
    assert!(planned(&protected, &[], &[]).is_ok(), "the control");
    let elsewhere = [("/", Read, false), ("/w/.git", Read, false)];
    assert_eq!(planned(&elsewhere, &[], &["/w"]), Ok(vec![mount("/", Read)]));
    let written = [("/", Read, false), ("/w", Write, false)];
    assert_eq!(planned(&written, &[], &["/w"]), Ok(vec![mount("/", Read)]));
}

#[test]
fn what_cannot_be_enforced_is_refused_as_a_whole() {
    for (entries, why) in [
        (&[("/usr", Read, false)][..], Unenforceable::NoRoot),
        (&[("/", Read, false), ("w", Write, false)], Unenforceable::BadPath),
        (
            &[("/", Read, false), ("/a/../w", Write, false)],
            Unenforceable::BadPath,
        ),
        (
            &[("/", Read, false), ("/dev/shm", Write, false)],
            Unenforceable::Special,
        ),
        (
            &[("/", Read, false), ("/proc", Read, false)],
            Unenforceable::Special,
        ),
    ] {
        assert_eq!(planned(entries, &[], &[]), Err(why), "{entries:?}");
    }
    let many = vec![("/", Read, false); CONFINED_PATHS_MAX + 1];
    assert_eq!(planned(&many, &[], &[]), Err(Unenforceable::TooMany));
    assert_eq!(planned(&many[1..], &[], &[]), Ok(vec![mount("/", Read)]));
}

#[test]
fn at_one_place_the_narrower_counts() {
    let entries = [("/", Write, false), ("/", Read, false)];
    assert_eq!(planned(&entries, &[], &[]), Ok(vec![mount("/", Read)]));
}

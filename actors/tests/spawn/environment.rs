//! What a command finds in its environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use dwell_actors::spawn::{
    Environment, EnvironmentPolicy, Inherit, ResolvedEnvironment, SpawnRequest, Spawner,
};
use proptest::prelude::*;

use super::support::{finish, not_counting, request, run, start};

const PARENT: &[(&str, &str)] = &[
    ("PATH", "/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C"),
    ("TERM", "dumb"),
    ("EDITOR", "vi"),
    ("AWS_SECRET_ACCESS_KEY", "s1"),
    ("github_token", "s2"),
    ("DbPassword", "s3"),
    ("LC_SECRET", "s4"),
    ("PWD", "/root"),
];

fn resolved(inherit: Inherit, set: &[(&str, &str)], unset: &[&str]) -> ResolvedEnvironment {
    let policy = EnvironmentPolicy {
        inherit,
        set: set
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect(),
        unset: unset.iter().map(|name| name.as_bytes().to_vec()).collect(),
        ..EnvironmentPolicy::default()
    };
    Environment::resolve(
        &policy,
        PARENT.iter().map(|(name, value)| (name.into(), value.into())),
    )
}

fn names<'a>(names: impl Iterator<Item = &'a Vec<u8>>) -> Vec<&'a str> {
    names.map(|name| std::str::from_utf8(name).unwrap()).collect()
}

fn kept(resolved: &ResolvedEnvironment) -> Vec<&str> {
    names(resolved.environment.pairs().iter().map(|(name, _)| name))
}

fn withheld(resolved: &ResolvedEnvironment) -> Vec<&str> {
    names(resolved.withheld.iter())
}

/// P-31.
#[test]
fn each_policy_passes_what_it_says_and_names_what_it_withholds() {
    let secrets = ["AWS_SECRET_ACCESS_KEY", "DbPassword", "LC_SECRET", "github_token"];

    let core = resolved(Inherit::Core, &[], &[]);
    assert_eq!(kept(&core), ["HOME", "LC_ALL", "PATH", "TERM"]);
    assert_eq!(
        withheld(&core),
        [
            "AWS_SECRET_ACCESS_KEY",
            "DbPassword",
            "EDITOR",
            "LC_SECRET",
            "PWD",
            "github_token"
        ]
    );

    let all = resolved(Inherit::All, &[], &[]);
    assert_eq!(kept(&all), ["EDITOR", "HOME", "LC_ALL", "PATH", "PWD", "TERM"]);
    assert_eq!(withheld(&all), secrets);

    let none = resolved(Inherit::None, &[], &[]);
    assert!(kept(&none).is_empty());
    assert_eq!(withheld(&none).len(), PARENT.len());
}

#[test]
fn what_is_set_counts_whatever_was_inherited_or_withheld() {
    let set = [
        ("HOME", "/elsewhere"),
        ("github_token", "mine"),
        ("TRACEPARENT", "00-1"),
        ("NEW", "x"),
    ];
    let got = resolved(Inherit::Core, &set, &["TERM", "NEW", "github_token", "EDITOR"]);
    let env = &got.environment;
    assert_eq!(env.value(b"HOME"), Some(b"/elsewhere".as_slice()));
    assert_eq!(
        env.value(b"github_token"),
        Some(b"mine".as_slice()),
        "a secret the request itself brings"
    );
    assert_eq!(env.value(b"TRACEPARENT"), Some(b"00-1".as_slice()));
    assert_eq!(env.value(b"NEW"), Some(b"x".as_slice()));
    assert_eq!(env.value(b"TERM"), None);
    assert_eq!(
        withheld(&got),
        ["AWS_SECRET_ACCESS_KEY", "DbPassword", "LC_SECRET", "PWD"]
    );
}

#[test]
fn no_value_shows_in_debug_output() {
    let got = resolved(Inherit::All, &[("API_KEY", "hidden")], &[]);
    let policy = EnvironmentPolicy {
        set: vec![(b"API_KEY".to_vec(), b"hidden".to_vec())],
        ..Default::default()
    };
    let text = format!("{got:?} {policy:?}");
    assert!(
        text.contains("API_KEY") && !text.contains("hidden") && !text.contains("/root"),
        "{text}"
    );
}

/// P-31.
#[test]
fn the_child_has_exactly_the_environment_of_the_request() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let pairs = [
            (b"PATH".to_vec(), b"/usr/bin:/bin".to_vec()),
            (b"ODD".to_vec(), b"\xff a=b\n".to_vec()),
        ];
        let env = Environment::exact(pairs);
        let finished = finish(
            start(
                &spawner,
                SpawnRequest {
                    env,
                    ..request(&["env", "-0"])
                },
            )
            .await,
        )
        .await;
        assert_eq!(finished.stdout, b"ODD=\xff a=b\n\0PATH=/usr/bin:/bin\0");
    });
}

proptest! {
    #[test]
    fn every_name_of_the_parent_is_kept_or_withheld_or_was_unset(
        parent in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..12), any::<u8>(), 0..20),
        inherit in prop::sample::select(vec![Inherit::Core, Inherit::All, Inherit::None]),
        unset in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..5),
    ) {
        let policy = EnvironmentPolicy { inherit, unset: unset.clone(), ..EnvironmentPolicy::default() };
        let pairs = parent.iter().map(|(name, value)| (OsString::from_vec(name.clone()), OsString::from_vec(vec![*value])));
        let got = Environment::resolve(&policy, pairs);
        for name in parent.keys() {
            let is_kept = got.environment.value(name).is_some();
            let places = [is_kept, got.withheld.contains(name), unset.contains(name)];
            prop_assert_eq!(places.iter().filter(|is_in| **is_in).count(), 1);
        }
        let request = SpawnRequest { env: got.environment, ..request(&["true"]) };
        let has_nul = parent.keys().chain(&unset).any(|name| name.contains(&0));
        prop_assert!(has_nul || parent.values().any(|value| *value == 0) || request.validate().is_ok());
    }
}

#[test]
fn patterns_narrow_what_is_inherited_and_secrets_come_only_when_asked_for() {
    let parent = || {
        ["LC_ALL", "LANG", "API_KEY", "EDITOR", "LESS"]
            .map(|name| (OsString::from(name), OsString::from("x")))
    };
    let names = |policy: EnvironmentPolicy| {
        let resolved = Environment::resolve(&policy, parent());
        let pairs = resolved.environment.pairs().to_vec();
        pairs
            .into_iter()
            .map(|(name, _)| String::from_utf8(name).unwrap())
            .collect::<Vec<_>>()
    };
    let all = EnvironmentPolicy {
        inherit: Inherit::All,
        ..EnvironmentPolicy::default()
    };
    assert_eq!(names(all.clone()), ["EDITOR", "LANG", "LC_ALL", "LESS"]);
    let mut narrow = all.clone();
    narrow.include = vec![b"L*".to_vec()];
    narrow.exclude = vec![b"LES?".to_vec()];
    assert_eq!(names(narrow), ["LANG", "LC_ALL"]);
    let mut asked = all;
    asked.secrets = true;
    assert_eq!(names(asked), ["API_KEY", "EDITOR", "LANG", "LC_ALL", "LESS"]);
}

use std::path::Path;

use dwell_actors::config::{EXECUTOR_PORT_DEFAULT, Home, HomeError, RELAY_PORT_DEFAULT};
use dwell_messages::Role;

fn resolve(variables: &[(&str, &str)]) -> Result<Home, HomeError> {
    Home::resolve(|name| {
        variables
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.into())
    })
}

#[test]
fn dwell_home_holds_everything() {
    let home = resolve(&[("DWELL_HOME", "/d"), ("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]).unwrap();
    assert_eq!(home, Home::at(Path::new("/d")));
    assert_eq!(home.identity(Role::Executor), Path::new("/d/keys/executor.key"));
    assert_eq!(home.authorized_clients(), Path::new("/d/authorized_clients"));
    assert_eq!(home.config_file(), Path::new("/d/config.toml"));
    assert_eq!(home.traces_dir(), Path::new("/d/traces"));
    assert_eq!(home.runs_db(), Path::new("/d/runs.db"));
}

#[test]
fn keys_are_configuration_and_traces_are_state() {
    let home = resolve(&[("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s")]).unwrap();
    assert_eq!(
        home.identity(Role::Harness),
        Path::new("/c/dwell/keys/harness.key")
    );
    assert_eq!(home.runs_db(), Path::new("/s/dwell/runs.db"));
}

#[test]
fn without_xdg_both_are_below_home() {
    let home = resolve(&[("HOME", "/h"), ("DWELL_HOME", "")]).unwrap();
    assert_eq!(
        home.authorized_clients(),
        Path::new("/h/.config/dwell/authorized_clients")
    );
    assert_eq!(home.traces_dir(), Path::new("/h/.local/state/dwell/traces"));
}

#[test]
fn an_xdg_variable_that_is_empty_or_relative_counts_as_unset() {
    let home = resolve(&[("HOME", "/h"), ("XDG_CONFIG_HOME", ""), ("XDG_STATE_HOME", "rel")]).unwrap();
    assert_eq!(home, resolve(&[("HOME", "/h")]).unwrap());
}

#[test]
fn with_nothing_set_the_error_says_what_to_set() {
    assert_eq!(
        resolve(&[]),
        Err(HomeError::NotSet {
            xdg: "XDG_CONFIG_HOME"
        })
    );
    let only_config = resolve(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "rel")]).unwrap_err();
    assert_eq!(
        only_config,
        HomeError::NotSet {
            xdg: "XDG_STATE_HOME"
        }
    );
    assert!(only_config.to_string().contains("set $DWELL_HOME"));
}

#[test]
fn a_relative_dwell_home_is_refused() {
    assert!(matches!(
        resolve(&[("DWELL_HOME", "here"), ("HOME", "/h")]),
        Err(HomeError::Relative { .. })
    ));
}

#[test]
fn each_role_has_a_port_of_its_own() {
    assert_ne!(RELAY_PORT_DEFAULT, EXECUTOR_PORT_DEFAULT);
}

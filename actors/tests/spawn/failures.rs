//! What cannot be started, and what is said about it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dwell_actors::spawn::{ARGUMENT_MAX_BYTES, Environment, Place, SpawnErrorKind, SpawnRequest, Spawner};
use rustix::io::Errno;

use super::support::{failure, finish, in_directory, not_counting, request, run, start, submit};

fn kind_of(request: SpawnRequest) -> SpawnErrorKind {
    run(async { failure(&Spawner::start().unwrap(), request).await })
}

fn file(directory: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    dwell_testkit::write_program(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn program(path: &Path) -> SpawnRequest {
    request(&[path.to_str().unwrap()])
}

const NOENT: i32 = Errno::NOENT.raw_os_error();
const ACCESS: i32 = Errno::ACCESS.raw_os_error();
const NOTDIR: i32 = Errno::NOTDIR.raw_os_error();

/// P-01.
#[test]
fn a_missing_program_is_missing_by_path_and_by_name() {
    let _shared = not_counting();
    let missing = SpawnErrorKind::ProgramMissing { errno: NOENT };
    assert_eq!(kind_of(request(&["/no/such/program"])), missing);
    assert_eq!(kind_of(request(&["no-such-program"])), missing);
    assert_eq!(kind_of(request(&[""])), missing);
    let below_a_file = SpawnErrorKind::ProgramMissing { errno: NOTDIR };
    assert_eq!(kind_of(request(&["/etc/passwd/program"])), below_a_file);
}

/// P-01.
#[test]
fn a_file_without_permission_is_not_executable() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "plain", b"#!/bin/sh\n", 0o644);
    let not_executable = SpawnErrorKind::NotExecutable { errno: ACCESS };
    assert_eq!(kind_of(program(&path)), not_executable);
    let by_name = SpawnRequest {
        env: path_of(&[directory.path()]),
        ..request(&["plain"])
    };
    assert_eq!(kind_of(by_name), not_executable);
}

/// P-01.
#[test]
fn a_directory_is_not_executable() {
    let _shared = not_counting();
    assert_eq!(
        kind_of(request(&["/tmp"])),
        SpawnErrorKind::NotExecutable { errno: ACCESS }
    );
}

/// P-01.
#[test]
fn a_format_the_kernel_does_not_know_is_not_executable() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    let not_executable = SpawnErrorKind::NotExecutable {
        errno: Errno::NOEXEC.raw_os_error(),
    };
    let text = file(directory.path(), "text", b"just words\n", 0o755);
    assert_eq!(
        kind_of(program(&text)),
        not_executable,
        "no shell is tried in its place"
    );
    let elf = file(
        directory.path(),
        "elf",
        b"\x7fELF\x02\x01\x01garbage garbage garbage",
        0o755,
    );
    assert_eq!(kind_of(program(&elf)), not_executable);
    let empty = file(directory.path(), "empty", b"", 0o755);
    assert_eq!(kind_of(program(&empty)), not_executable);
}

#[test]
fn a_missing_interpreter_is_told_from_a_missing_program() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    let script = file(directory.path(), "script", b"#!/no/such/interpreter\n", 0o755);
    assert_eq!(
        kind_of(program(&script)),
        SpawnErrorKind::InterpreterMissing { errno: NOENT }
    );
}

/// P-01.
#[test]
fn interpreters_that_name_each_other_are_not_executable() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loop");
    let first_line = format!("#!{}\n", path.display());
    file(directory.path(), "loop", first_line.as_bytes(), 0o755);
    assert_eq!(
        kind_of(program(&path)),
        SpawnErrorKind::NotExecutable {
            errno: Errno::LOOP.raw_os_error()
        }
    );
}

#[test]
fn a_program_that_is_being_written_is_busy_and_worth_another_try() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy");
    file(
        directory.path(),
        "copy",
        &std::fs::read("/bin/true").unwrap(),
        0o755,
    );
    let writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let kind = kind_of(program(&path));
    assert_eq!(kind, SpawnErrorKind::ProgramBusy);
    assert!(kind.is_retryable());
    drop(writer);
    run(async {
        let spawner = Spawner::start().unwrap();
        // A child of another test may have it open for a moment longer: it is worth another try.
        let spawned = loop {
            match submit(&spawner, program(&path)).await.result {
                Ok(spawned) => break spawned,
                Err(error) => assert_eq!(error.kind, SpawnErrorKind::ProgramBusy),
            }
        };
        finish(spawned).await;
    });
}

/// P-02.
#[test]
fn a_bad_working_directory_is_told_from_a_bad_program() {
    let _shared = not_counting();
    let unusable = |errno| SpawnErrorKind::CwdUnusable { errno };
    let in_missing = |argv: &[&str]| kind_of(in_directory(request(argv), Path::new("/no/such/directory")));
    assert_eq!(in_missing(&["true"]), unusable(NOENT));
    assert_eq!(in_missing(&["/bin/true"]), unusable(NOENT));
    assert_eq!(
        in_missing(&["/no/such/program"]),
        unusable(NOENT),
        "the directory is entered first"
    );
    assert_eq!(in_missing(&["no-such-program"]), unusable(NOENT));
    assert_eq!(
        kind_of(in_directory(request(&["true"]), Path::new("/etc/passwd"))),
        unusable(NOTDIR)
    );
    assert_eq!(
        kind_of(in_directory(request(&["true"]), Path::new(""))),
        unusable(NOENT)
    );
    let missing = kind_of(in_directory(request(&["no-such-program"]), Path::new("/")));
    assert_eq!(missing, SpawnErrorKind::ProgramMissing { errno: NOENT });
}

/// P-02.
#[test]
fn a_deleted_working_directory_is_missing() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    drop(directory);
    let kind = kind_of(in_directory(request(&["true"]), &path));
    assert_eq!(kind, SpawnErrorKind::CwdUnusable { errno: NOENT });
}

#[test]
fn what_the_kernel_could_not_take_is_refused_before_it_is_asked() {
    let at = |index| SpawnErrorKind::NulByte {
        place: Place::Argument(index),
    };
    let checked = |request: SpawnRequest| request.validate().unwrap_err().kind;
    assert_eq!(checked(request(&[])), SpawnErrorKind::EmptyArgv);
    assert_eq!(checked(request(&["tr\0ue"])), at(0));
    assert_eq!(checked(request(&["echo", "a", "b\0"])), at(2));
    let cwd = SpawnRequest {
        cwd: Some(b"/tmp\0".to_vec()),
        ..request(&["true"])
    };
    assert_eq!(checked(cwd), SpawnErrorKind::NulByte { place: Place::Cwd });
    let named = |name: &[u8], value: &[u8]| SpawnRequest {
        env: Environment::exact([(name.to_vec(), value.to_vec())]),
        ..request(&["true"])
    };
    assert_eq!(
        checked(named(b"", b"x")),
        SpawnErrorKind::InvalidEnvironmentName { index: 0 }
    );
    assert_eq!(
        checked(named(b"A=B", b"x")),
        SpawnErrorKind::InvalidEnvironmentName { index: 0 }
    );
    assert_eq!(
        checked(named(b"A", b"\0")),
        SpawnErrorKind::NulByte {
            place: Place::Environment(0)
        }
    );
    let too_long = checked(named(b"A", &vec![b'x'; ARGUMENT_MAX_BYTES - 1]));
    assert!(matches!(
        too_long,
        SpawnErrorKind::ArgumentTooLong {
            place: Place::Environment(0),
            ..
        }
    ));
}

/// P-03.
#[test]
fn the_longest_argument_passes_and_one_byte_more_does_not() {
    let _shared = not_counting();
    let longest = "x".repeat(ARGUMENT_MAX_BYTES);
    run(async {
        let spawner = Spawner::start().unwrap();
        let finished = finish(start(&spawner, request(&["printf", "%s", &longest])).await).await;
        assert_eq!(finished.stdout.len(), ARGUMENT_MAX_BYTES);
        let error = submit(&spawner, request(&["true", &format!("{longest}x")]))
            .await
            .result
            .unwrap_err();
        let (length_bytes, limit_bytes) = (ARGUMENT_MAX_BYTES + 1, ARGUMENT_MAX_BYTES);
        let place = Place::Argument(1);
        assert_eq!(
            error.kind,
            SpawnErrorKind::ArgumentTooLong {
                place,
                length_bytes,
                limit_bytes
            }
        );
        assert_eq!(error.errno, None);
    });
}

/// P-03.
#[test]
fn too_many_arguments_together_are_refused_by_the_kernel_and_typed() {
    let _shared = not_counting();
    let long = "x".repeat(100_000);
    let argv: Vec<&str> = std::iter::once("true")
        .chain(std::iter::repeat_n(long.as_str(), 100))
        .collect();
    run(async {
        let error = submit(&Spawner::start().unwrap(), request(&argv))
            .await
            .result
            .unwrap_err();
        assert_eq!(error.kind, SpawnErrorKind::ArgumentsTooLong);
        assert_eq!(error.errno, Some(Errno::TOOBIG.raw_os_error()));
    });
}

#[test]
fn an_error_says_what_to_do_and_names_no_argument_and_no_path() {
    let _shared = not_counting();
    run(async {
        let secret = in_directory(request(&["/no/such/hidden", "hidden"]), Path::new("/no/hidden"));
        let error = submit(&Spawner::start().unwrap(), secret)
            .await
            .result
            .unwrap_err();
        assert_eq!(error.errno, Some(NOENT));
        let text = error.to_string();
        assert!(
            text.contains("working directory") && !text.contains("hidden"),
            "{text}"
        );
    });
}

fn path_of(directories: &[&Path]) -> Environment {
    let joined = std::env::join_paths(directories).unwrap();
    Environment::exact([(b"PATH".to_vec(), joined.into_encoded_bytes())])
}

async fn output_of(spawner: &Spawner, request: SpawnRequest) -> String {
    String::from_utf8(finish(start(spawner, request).await).await.stdout).unwrap()
}

#[test]
fn a_bare_name_is_looked_up_in_the_commands_own_path_in_order() {
    let _shared = not_counting();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    file(first.path(), "which-one", b"not executable", 0o644);
    file(second.path(), "which-one", b"#!/bin/sh\necho second\n", 0o755);
    run(async {
        let spawner = Spawner::start().unwrap();
        let argv = request(&["which-one"]);
        let env = path_of(&[Path::new("/no/such"), first.path(), second.path()]);
        assert_eq!(
            output_of(&spawner, SpawnRequest { env, ..argv.clone() }).await,
            "second\n"
        );
        file(first.path(), "which-one", b"#!/bin/sh\necho first\n", 0o755);
        let env = path_of(&[first.path(), second.path()]);
        assert_eq!(
            output_of(&spawner, SpawnRequest { env, ..argv.clone() }).await,
            "first\n"
        );
        assert!(matches!(
            failure(&spawner, argv).await,
            SpawnErrorKind::ProgramMissing { .. }
        ));
    });
}

#[test]
fn relative_programs_and_path_entries_count_from_the_commands_directory() {
    let _shared = not_counting();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("bin")).unwrap();
    file(
        directory.path(),
        "bin/tool",
        b"#!/bin/sh\necho tool in $PWD\n",
        0o755,
    );
    file(directory.path(), "here", b"#!/bin/sh\necho here\n", 0o755);
    let place = directory.path().canonicalize().unwrap();
    run(async {
        let spawner = Spawner::start().unwrap();
        let there = |request| in_directory(request, &place);
        let expected = format!("tool in {}\n", place.display());
        assert_eq!(
            output_of(&spawner, there(request(&["./bin/tool"]))).await,
            expected
        );
        assert_eq!(output_of(&spawner, there(request(&["bin/tool"]))).await, expected);
        let env = path_of(&[Path::new("bin"), Path::new("/usr/bin")]);
        assert_eq!(
            output_of(
                &spawner,
                SpawnRequest {
                    env,
                    ..there(request(&["tool"]))
                }
            )
            .await,
            expected
        );
        let env = Environment::exact([(b"PATH".to_vec(), b":/bin".to_vec())]);
        assert_eq!(
            output_of(
                &spawner,
                SpawnRequest {
                    env,
                    ..there(request(&["here"]))
                }
            )
            .await,
            "here\n"
        );
    });
}

#[test]
fn without_a_path_the_systems_own_directories_are_searched() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let bare = SpawnRequest {
            env: Environment::default(),
            ..request(&["echo", "found"])
        };
        assert_eq!(output_of(&spawner, bare).await, "found\n");
    });
}

#[test]
fn the_program_sees_its_name_as_it_was_given() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let finished = finish(start(&spawner, request(&["cat", "/proc/self/cmdline"])).await).await;
        assert_eq!(finished.stdout, b"cat\0/proc/self/cmdline\0");
        let bytes = SpawnRequest {
            argv: vec![b"printf".to_vec(), b"%s".to_vec(), b"\xff\xfe\x80".to_vec()],
            ..request(&[])
        };
        assert_eq!(finish(start(&spawner, bytes).await).await.stdout, b"\xff\xfe\x80");
    });
}

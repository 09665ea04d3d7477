//! What the executor's own user may not do. Root may do everything, so as root this binary starts itself as nobody.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use dwell_actors::files::WriteOptions;
use dwell_messages::ErrorCode;
use dwell_messages::files::Links;

use crate::place::Site;

const NOBODY: u32 = 65_534;

/// Runs an ignored test of this binary as somebody who is not root.
pub(crate) fn as_nobody(test: &str) {
    let own = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut child = if rustix::process::geteuid().is_root() {
        // Where it lies nobody may be kept out.
        let copy = dir.path().join("test");
        // Not by this process, whose children would have it open for writing until they execute their own programs.
        let copied = Command::new("cp").args([&own, &copy]).status().unwrap();
        assert!(copied.success());
        for path in [dir.path(), &copy] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut child = Command::new(copy);
        child
            .uid(NOBODY)
            .gid(NOBODY)
            .env("TMPDIR", &home)
            .env("HOME", &home)
            .current_dir("/");
        child
    } else {
        Command::new(own)
    };
    let output = child
        .args(["--ignored", "--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_the_executors_user_may_not_do_is_denied_and_changes_nothing() {
    as_nobody("denied::denied");
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
#[ignore = "another test starts it as somebody who is not root"]
async fn denied() {
    assert!(!rustix::process::geteuid().is_root());
    let site = Site::start().await;
    std::fs::create_dir_all(site.path("locked/in")).unwrap();
    std::fs::create_dir(site.path("read-only")).unwrap();
    site.write("secret", b"x");
    site.write("read-only/f", b"old");
    mode(&site.path("secret"), 0);
    mode(&site.path("locked"), 0);
    mode(&site.path("read-only"), 0o555);
    let files = &site.files;
    let f = site.at("read-only/f");
    for error in [
        files.read_file(site.at("secret"), 10).await.unwrap_err(),
        files.open(site.at("secret")).next().await.unwrap_err(),
        files
            .write_file(site.at("secret"), &b"y"[..], WriteOptions::default())
            .await
            .unwrap_err(),
        files
            .metadata_of(site.at("locked/in"), Links::Follow)
            .await
            .unwrap_err(),
        files
            .metadata_of(site.at("locked/in"), Links::Refuse)
            .await
            .unwrap_err(),
        files
            .list_directory(site.at("locked"), 10, false)
            .await
            .unwrap_err(),
        files
            .write_file(&f, &b"new"[..], WriteOptions::atomic())
            .await
            .unwrap_err(),
        files
            .write_file(site.at("read-only/g"), &b"new"[..], WriteOptions::default())
            .await
            .unwrap_err(),
        files
            .create_directory(site.at("read-only/d"), true)
            .await
            .unwrap_err(),
        files.remove(&f).await.unwrap_err(),
        files.remove_all(site.at("read-only")).await.unwrap_err(),
        files.rename(&f, site.at("moved"), false).await.unwrap_err(),
    ] {
        assert_eq!(
            (error.code, error.errno),
            (ErrorCode::AccessDenied, Some(13)),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(site.path("read-only/f")).unwrap(), b"old");
    // The positive control: with the right to do it, it is done.
    mode(&site.path("read-only"), 0o755);
    assert!(
        files
            .write_file(&f, &b"new"[..], WriteOptions::atomic())
            .await
            .is_ok()
    );
    // A directory that may be written and not read: the file is synced all the same.
    mode(&site.path("read-only"), 0o333);
    assert!(
        files
            .write_file(&f, &b"newer"[..], WriteOptions::atomic())
            .await
            .is_ok()
    );
    mode(&site.path("read-only"), 0o755);
    assert_eq!(std::fs::read(site.path("read-only/f")).unwrap(), b"newer");
    mode(&site.path("locked"), 0o755);
}

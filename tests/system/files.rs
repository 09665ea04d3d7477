//! Files on a disk that fills up. As root: it is mounted.

use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::files::{TEMPORARY_PREFIX, WriteOptions};
use dwell_actors::harness::{Harness, Target};
use dwell_messages::ErrorCode;
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::wait_until;

use crate::power_cut::Mounted;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_full_disk_leaves_the_old_file_and_says_so() {
    let disk = Mounted::in_memory("1m");
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public());
    let executor = executor.serve().await.unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    let files = harness.files();
    let path = disk.path().join("f");
    let name = path.as_os_str().as_bytes();
    files
        .write_file(name, vec![b'o'; 400_000], WriteOptions::atomic())
        .await
        .unwrap();
    // In one message, and in blocks.
    for length in [250_000, 2_000_000] {
        if length == 250_000 {
            std::fs::write(disk.path().join("filler"), vec![0; 550_000]).unwrap();
        }
        let error = files
            .write_file(name, vec![b'n'; length], WriteOptions::atomic())
            .await
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::NoSpace, "{error}");
        assert!(
            std::fs::read(&path).unwrap() == vec![b'o'; 400_000],
            "half of the new one has the name"
        );
        let is_gone = || {
            let mut names = std::fs::read_dir(disk.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            names.all(|name| !name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))
        };
        wait_until(BOUND, is_gone).await.unwrap();
    }
    let copy = dwell_messages::files::Copy {
        from: name.to_vec().into(),
        to: disk.path().join("copy").as_os_str().as_bytes().to_vec().into(),
        recursive: false,
        overwrite: false,
        links: dwell_messages::files::Links::Follow,
    };
    assert_eq!(files.copy(copy).await.unwrap_err().code, ErrorCode::NoSpace);
    assert!(!disk.path().join("copy").exists(), "half a copy is no copy");
    // The positive control: what is not replaced at once is lost on a full disk.
    let error = files
        .write_file(name, vec![b'n'; 2_000_000], WriteOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSpace);
    assert!(std::fs::read(&path).unwrap() != vec![b'o'; 400_000]);
    // And with room again it is replaced.
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    files.remove(name).await.unwrap();
    // What was refused is closed behind the refusal, and has its room until then.
    let has_room = || {
        let disk = rustix::fs::statvfs(disk.path()).unwrap();
        disk.f_bavail * disk.f_frsize >= 500_000
    };
    wait_until(BOUND, has_room).await.unwrap();
    files
        .write_file(name, vec![b'n'; 400_000], WriteOptions::atomic())
        .await
        .unwrap();
    harness.shutdown().await;
}

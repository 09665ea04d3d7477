//! Searches in random trees, with links, directories that cannot be read and directories that go while somebody looks: what
//! is found is what the plainest sequential walk finds.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_actors::find_up::{Found, LOCAL_PROBES, PROBES_MAX, Query, find_up};
use dwell_messages::ErrorCode;
use dwell_messages::workspace::OnError;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::disk::Disk;
use crate::tree::Tree;

const TREES: u32 = 10_000;
const MARKERS: [&str; 4] = ["dw-m0", "dw-m1", "dw-m2", "dw-m3"];

/// What stands under a marker's name.
#[derive(Clone, Copy, Debug)]
enum Thing {
    File,
    Directory,
    /// To the directory so many levels down.
    Link(usize),
    Dangling,
    Loop,
}

#[derive(Clone, Debug)]
struct Level {
    things: Vec<(usize, Thing)>,
    /// The directory is a link to one elsewhere.
    linked: bool,
    denied: bool,
}

#[derive(Clone, Debug)]
struct Shape {
    levels: Vec<Level>,
    /// From that probe on the directory at that level is gone.
    vanishing: Vec<(usize, usize)>,
    /// Names below the last level that do not exist.
    beyond: usize,
    markers: usize,
    on_error: OnError,
    delays: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let thing = prop_oneof![
        3 => Just(Thing::File),
        3 => Just(Thing::Directory),
        2 => (0usize..10).prop_map(Thing::Link),
        1 => Just(Thing::Dangling),
        1 => Just(Thing::Loop),
    ];
    let things = prop_oneof![
        4 => Just(Vec::new()),
        1 => proptest::collection::vec((0..MARKERS.len(), thing), 1..4),
    ];
    let level = (
        things,
        proptest::bool::weighted(0.15),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(things, linked, denied)| Level {
            things,
            linked,
            denied,
        });
    (
        proptest::collection::vec(level, 1..10),
        proptest::collection::vec((0usize..20, 0usize..10), 0..3),
        0usize..3,
        0..=MARKERS.len(),
        prop_oneof![Just(OnError::Ignore), Just(OnError::Propagate)],
        any::<u64>(),
    )
        .prop_map(|(levels, vanishing, beyond, markers, on_error, delays)| Shape {
            levels,
            vanishing,
            beyond,
            markers,
            on_error,
            delays,
        })
}

impl Shape {
    fn path(&self, level: usize) -> String {
        (0..=level.min(self.levels.len() - 1)).fold(String::new(), |path, at| format!("{path}/d{at}"))
    }

    fn from(&self) -> String {
        let mut from = self.path(self.levels.len() - 1);
        for at in 0..self.beyond {
            from = format!("{from}/none{at}");
        }
        from
    }

    fn markers(&self) -> &[&'static str] {
        &MARKERS[..self.markers]
    }

    /// In memory, with every fault.
    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        // Where the directories really are, given that some of them are links.
        let mut real = String::new();
        for (at, level) in self.levels.iter().enumerate() {
            let here = format!("{real}/d{at}");
            let place = if level.linked {
                let elsewhere = format!("/elsewhere{at}");
                tree = tree.link(&here, &elsewhere);
                elsewhere
            } else {
                here
            };
            tree = tree.directory(&place);
            for (marker, thing) in &level.things {
                let path = format!("{place}/{}", MARKERS[*marker]);
                tree = match thing {
                    Thing::File => tree.file(&path, "x"),
                    Thing::Directory => tree.directory(&path),
                    Thing::Link(to) => tree.link(&path, &self.path(*to)),
                    Thing::Dangling => tree.link(&path, "nowhere"),
                    Thing::Loop => tree.link(&path, MARKERS[*marker]),
                };
            }
            if level.denied {
                tree = tree.deny(place.as_bytes());
            }
            real = place;
        }
        for (from_call, level) in &self.vanishing {
            tree = tree.vanish(*from_call, self.path(*level).as_bytes());
        }
        tree
    }
}

/// The plainest walk there is: one probe, one answer, and so on.
fn naive(
    from: &Path,
    markers: &[&str],
    on_error: OnError,
    mut probe: impl FnMut(&Path) -> Result<(), ErrorCode>,
) -> Result<Option<(PathBuf, usize)>, ErrorCode> {
    for directory in from.ancestors() {
        for (index, marker) in markers.iter().enumerate() {
            match probe(&directory.join(marker)) {
                Ok(()) => return Ok(Some((directory.to_path_buf(), index))),
                Err(ErrorCode::NotFound | ErrorCode::NotADirectory) => {}
                Err(error) if on_error == OnError::Propagate => return Err(error),
                Err(_) => {}
            }
        }
    }
    Ok(None)
}

fn of(found: Found) -> Option<(PathBuf, usize)> {
    let root = found
        .root
        .map(|root| PathBuf::from(std::ffi::OsStr::from_bytes(&root)));
    root.zip(found.marker)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

fn expected_of(shape: &Shape) -> Result<Option<(PathBuf, usize)>, ErrorCode> {
    let tree = shape.tree();
    let probe = |path: &Path| {
        tree.look(path.as_os_str().as_bytes())
            .map(drop)
            .map_err(|error| error.code)
    };
    naive(Path::new(&shape.from()), shape.markers(), shape.on_error, probe)
}

/// How many of the trees had something to say, so that agreement is not agreement about nothing.
#[derive(Default, Debug)]
struct Seen {
    found: u32,
    nothing: u32,
    failed: u32,
}

#[test]
fn the_pipelined_search_finds_what_a_sequential_walk_finds_in_ten_thousand_random_trees() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let seen = std::cell::RefCell::new(Seen::default());
    let outcome = runner(TREES).run(&shapes(), |shape| {
        let expected = expected_of(&shape);
        let query = Query::new(shape.from().as_bytes(), shape.markers(), shape.on_error).unwrap();
        let seed = shape.delays;
        for in_flight in [LOCAL_PROBES, 3, PROBES_MAX] {
            let tree = shape.tree().delayed(move |path| {
                let mixed = path.iter().fold(seed, |mixed, byte| {
                    (mixed ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
                });
                Duration::from_millis(mixed % 50)
            });
            let found = runtime.block_on(find_up(&tree, &query, in_flight));
            prop_assert_eq!(found.map(of).map_err(|error| error.code), expected.clone());
            prop_assert!(tree.asked().in_flight_max <= in_flight);
        }
        let mut seen = seen.borrow_mut();
        match expected {
            Ok(Some(_)) => seen.found += 1,
            Ok(None) => seen.nothing += 1,
            Err(_) => seen.failed += 1,
        }
        Ok(())
    });
    outcome.unwrap();
    let seen = seen.into_inner();
    assert!(
        seen.found > TREES / 10 && seen.nothing > TREES / 10 && seen.failed > TREES / 100,
        "{seen:?}"
    );
}

/// Lays a shape on the disk. Who may read everything cannot be denied anything there.
fn lay(shape: &Shape, at: &Path) -> PathBuf {
    let mut real = at.to_path_buf();
    for (index, level) in shape.levels.iter().enumerate() {
        let here = real.join(format!("d{index}"));
        let place = if level.linked {
            let elsewhere = at.join(format!("elsewhere{index}"));
            std::os::unix::fs::symlink(&elsewhere, &here).unwrap();
            elsewhere
        } else {
            here
        };
        std::fs::create_dir(&place).unwrap();
        for (marker, thing) in &level.things {
            let path = place.join(MARKERS[*marker]);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            let to = |level: usize| at.join(&shape.path(level)[1..]);
            let made = match thing {
                Thing::File => std::fs::write(&path, "x"),
                Thing::Directory => std::fs::create_dir(&path),
                Thing::Link(level) => std::os::unix::fs::symlink(to(*level), &path),
                Thing::Dangling => std::os::unix::fs::symlink("nowhere", &path),
                Thing::Loop => std::os::unix::fs::symlink(MARKERS[*marker], &path),
            };
            made.unwrap();
        }
        real = place;
    }
    at.join(&shape.from()[1..])
}

#[test]
fn the_executors_search_finds_what_the_systems_own_paths_say_in_a_thousand_trees_on_a_disk() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runner(TREES / 10).run(&shapes(), |shape| {
        let dir = tempfile::tempdir().unwrap();
        let from = lay(&shape, dir.path());
        let probe = |path: &Path| {
            std::fs::metadata(path)
                .map(drop)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => ErrorCode::NotFound,
                    std::io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
                    _ => ErrorCode::FileFailed,
                })
        };
        let expected = naive(&from, shape.markers(), shape.on_error, probe);
        let query = Query::new(from.as_os_str().as_bytes(), shape.markers(), shape.on_error).unwrap();
        for in_flight in [LOCAL_PROBES, PROBES_MAX] {
            let found = runtime.block_on(find_up(&Disk, &query, in_flight));
            prop_assert_eq!(found.is_err(), expected.is_err());
            prop_assert_eq!(found.ok().map(of), expected.clone().ok());
        }
        Ok(())
    });
    outcome.unwrap();
}

//! Instructions: which files, in which order, how much of them, and what does not keep them from being read.

use dwell_actors::workspace::{Loader, Plan};
use dwell_messages::ErrorCode;
use dwell_messages::workspace::{WorkspaceLoad, WorkspaceReply};

use crate::tree::{Tree, text, usual};

async fn load(tree: &Tree, load: &WorkspaceLoad) -> WorkspaceReply {
    let plan = Plan::new(load, b"/", None).unwrap();
    let (near, _) = Loader::local(tree, &plan).load().await;
    let (far, _) = Loader::remote(tree, &plan).load().await;
    // However many questions are in flight, what is loaded is the same.
    let plain = |mut reply: WorkspaceReply| {
        (reply.stages, reply.counts.probed) = Default::default();
        reply
    };
    assert_eq!(plain(near.clone()), plain(far));
    near
}

fn told(reply: &WorkspaceReply) -> Vec<(&str, &str)> {
    let files = reply.agents.iter();
    files.map(|file| (text(&file.path), file.text.as_str())).collect()
}

fn project() -> Tree {
    Tree::new().repository("/p").directory("/p/x/y")
}

#[tokio::test]
async fn agents_come_from_the_root_down_to_cwd_and_from_nowhere_else() {
    let tree = project()
        .file("/AGENTS.md", "above")
        .file("/p/AGENTS.md", "root")
        .file("/p/x/AGENTS.md", "between")
        .file("/p/x/y/AGENTS.md", "cwd")
        .file("/p/x/y/z/AGENTS.md", "below")
        .file("/p/other/AGENTS.md", "beside");
    let reply = load(&tree, &usual("/p/x/y")).await;
    let expected = [
        ("/p/AGENTS.md", "root"),
        ("/p/x/AGENTS.md", "between"),
        ("/p/x/y/AGENTS.md", "cwd"),
    ];
    assert_eq!(told(&reply), expected);
    assert_eq!(reply.root.as_deref().map(|root| text(root)), Some("/p"));
    assert!(!reply.agents_truncated && reply.warnings.is_empty());
}

#[tokio::test]
async fn an_override_stands_in_for_the_plain_file_of_its_directory_only() {
    let tree = project()
        .file("/p/AGENTS.md", "root")
        .file("/p/AGENTS.override.md", "instead")
        .file("/p/x/AGENTS.md", "between");
    let reply = load(&tree, &usual("/p/x/y")).await;
    let expected = [
        ("/p/AGENTS.override.md", "instead"),
        ("/p/x/AGENTS.md", "between"),
    ];
    assert_eq!(told(&reply), expected);
}

#[tokio::test]
async fn without_a_root_only_cwd_itself_is_searched() {
    let tree = Tree::new()
        .file("/p/AGENTS.md", "above")
        .file("/p/x/AGENTS.md", "cwd");
    let reply = load(&tree, &usual("/p/x")).await;
    assert_eq!(told(&reply), [("/p/x/AGENTS.md", "cwd")]);
    assert_eq!(reply.root, None);
}

#[tokio::test]
async fn a_failed_root_walk_fails_the_instructions_and_nothing_else() {
    let tree = project()
        .file("/p/AGENTS.md", "root")
        .file(
            "/p/.agents/skills/s/SKILL.md",
            "---\nname: s\ndescription: d\n---\n",
        )
        .deny(b"/p/x/y");
    let reply = load(&tree, &usual("/p/x/y")).await;
    assert_eq!(reply.agents_error.unwrap().code, ErrorCode::AccessDenied);
    assert!(reply.agents.is_empty() && reply.root.is_none());
    assert_eq!(reply.skills.len(), 1);
    assert!(reply.repository.is_some());
}

#[tokio::test]
async fn the_limit_is_for_all_files_together_and_what_it_cuts_is_flagged() {
    let tree = project()
        .file("/p/AGENTS.md", "a".repeat(60))
        .file("/p/x/AGENTS.md", "é".repeat(30))
        .file("/p/x/y/AGENTS.md", "c");
    let limited = |text_max_bytes| WorkspaceLoad {
        text_max_bytes,
        ..usual("/p/x/y")
    };
    let whole = load(&tree, &limited(121)).await;
    assert_eq!(whole.agents.len(), 3);
    assert!(!whole.agents_truncated && whole.agents.iter().all(|file| !file.truncated));
    let cut = load(&tree, &limited(81)).await;
    // A character is not cut in two.
    assert_eq!(cut.agents[1].text, "é".repeat(10));
    assert_eq!(
        cut.agents.iter().map(|file| file.truncated).collect::<Vec<_>>(),
        [false, true]
    );
    assert!(cut.agents_truncated && cut.warnings.is_empty());
    let none = load(&tree, &limited(0)).await;
    assert!(none.agents.is_empty() && none.agents_truncated);
}

#[tokio::test]
async fn one_file_that_is_larger_than_everything_is_read_up_to_the_limit() {
    let tree = project().file("/p/AGENTS.md", "é".repeat(200_000));
    let reply = load(&tree, &usual("/p")).await;
    assert_eq!(reply.agents[0].text.len(), 128 * 1024);
    assert!(reply.agents[0].truncated && reply.agents_truncated && reply.warnings.is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_warned_of_and_not_replaced_by_what_it_overrides() {
    let tree = project()
        .link("/p/AGENTS.override.md", "/p/AGENTS.override.md")
        .file("/p/AGENTS.md", "not this")
        .directory("/p/x/AGENTS.override.md")
        .file("/p/x/AGENTS.md", "this")
        .file("/p/x/y/AGENTS.md", b"caf\xe9");
    let reply = load(&tree, &usual("/p/x/y")).await;
    assert_eq!(
        told(&reply),
        [("/p/x/AGENTS.md", "this"), ("/p/x/y/AGENTS.md", "caf\u{fffd}")]
    );
    let warned: Vec<_> = reply
        .warnings
        .iter()
        .map(|warning| (text(&warning.path), warning.code))
        .collect();
    let expected = [
        ("/p/AGENTS.override.md", ErrorCode::SymlinkLoop),
        ("/p/x/AGENTS.override.md", ErrorCode::IsADirectory),
        ("/p/x/y/AGENTS.md", ErrorCode::BadRequest),
    ];
    assert_eq!(warned, expected);
}

#[tokio::test]
async fn an_empty_file_says_nothing_and_still_overrides() {
    let tree = project()
        .file("/p/AGENTS.override.md", " \n")
        .file("/p/AGENTS.md", "overridden");
    assert_eq!(told(&load(&tree, &usual("/p")).await), [("", ""); 0]);
}

#[tokio::test]
async fn no_workspace_is_larger_than_one_message() {
    let mut tree = project();
    let deep: String = "/p".to_owned() + &format!("/{}", "d".repeat(200)).repeat(18);
    let mut at = "/p".to_owned();
    for _ in 0..18 {
        at = format!("{at}/{}", "d".repeat(200));
        tree = tree.file(&format!("{at}/AGENTS.md"), "x".repeat(100_000));
        for skill in 0..60 {
            let file = format!("{at}/.agents/skills/{}{skill}/SKILL.md", "s".repeat(200));
            let front = format!("---\nname: n\ndescription: {}\nk: [\n---\n", "d".repeat(2_000));
            tree = tree.file(&file, front);
        }
    }
    let asks = WorkspaceLoad {
        text_max_bytes: dwell_messages::workspace::TEXT_MAX_BYTES,
        ..usual(&deep)
    };
    let plan = Plan::new(&asks, b"/", None).unwrap();
    let (reply, _) = Loader::local(&tree, &plan).load().await;
    assert!(reply.agents_truncated && reply.skills_truncated);
    let message = dwell_messages::Message::Response {
        id: dwell_messages::RequestId(1),
        result: Ok(dwell_messages::Reply::Workspace(Box::new(reply))),
        timings: dwell_messages::Timings::default(),
    };
    let envelope = dwell_messages::Envelope::new(dwell_messages::TraceContext::default(), message);
    dwell_messages::codec::encode(&envelope, 1).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let refused = |change: &dyn Fn(&mut WorkspaceLoad)| {
        let mut load = usual("/p");
        change(&mut load);
        Plan::new(&load, b"/", None).err().map(|error| error.code)
    };
    let bytes = |text: &str| serde_bytes::ByteBuf::from(text.as_bytes());
    assert_eq!(refused(&|_| {}), None);
    assert_eq!(
        refused(&|load| load.cwd = Some(bytes("p"))),
        Some(ErrorCode::BadPath)
    );
    assert_eq!(
        refused(&|load| load.home = Some(bytes("~"))),
        Some(ErrorCode::BadPath)
    );
    assert_eq!(
        refused(&|load| load.agents = vec![bytes("../AGENTS.md")]),
        Some(ErrorCode::BadRequest)
    );
    assert_eq!(
        refused(&|load| load.skills = vec![bytes("../skills")]),
        Some(ErrorCode::BadPath)
    );
    assert_eq!(
        refused(&|load| load.skills = vec![bytes("/etc")]),
        Some(ErrorCode::BadPath)
    );
    assert_eq!(
        refused(&|load| load.markers = vec![bytes(".git"); 17]),
        Some(ErrorCode::BadRequest)
    );
    assert_eq!(
        refused(&|load| load.agents = vec![bytes("A"); 17]),
        Some(ErrorCode::BadRequest)
    );
    assert_eq!(
        refused(&|load| load.text_max_bytes = u32::MAX),
        Some(ErrorCode::BadRequest)
    );
}

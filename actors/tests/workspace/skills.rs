//! Skills: where they are looked for, what is read of them, and that a bad one costs itself and nothing else.

use dwell_actors::workspace::front_matter::{
    self, DESCRIPTION_MAX_BYTES, FRONT_MATTER_MAX_BYTES, METADATA_MAX,
};
use dwell_actors::workspace::{Loader, Plan, SKILL_ENTRIES_MAX};
use dwell_messages::ErrorCode;
use dwell_messages::workspace::{SKILLS_MAX, SkillOwner, WorkspaceLoad, WorkspaceReply};
use proptest::prelude::*;

use crate::tree::{Tree, text, usual};

async fn load(tree: &Tree, load: &WorkspaceLoad) -> WorkspaceReply {
    let plan = Plan::new(load, b"/", None).unwrap();
    Loader::remote(tree, &plan).load().await.0
}

fn front(name: &str) -> String {
    format!("---\nname: {name}\ndescription: what {name} does\n---\n\nThe body.")
}

fn project() -> Tree {
    Tree::new().repository("/p").directory("/p/x")
}

fn names(reply: &WorkspaceReply) -> Vec<&str> {
    reply.skills.iter().map(|skill| skill.name.as_str()).collect()
}

#[tokio::test]
async fn skills_come_from_root_to_cwd_then_the_users_own_each_in_the_order_of_names() {
    let tree = project()
        .file("/.agents/skills/above/SKILL.md", front("above"))
        .file("/p/.agents/skills/b/SKILL.md", front("root-b"))
        .file("/p/.agents/skills/a/SKILL.md", front("root-a"))
        .file("/p/x/.agents/skills/c/SKILL.md", front("cwd"))
        .file("/home/user/.agents/skills/d/SKILL.md", front("own"));
    let reply = load(&tree, &usual("/p/x")).await;
    assert_eq!(names(&reply), ["root-a", "root-b", "cwd", "own"]);
    let owners: Vec<_> = reply.skills.iter().map(|skill| skill.owner).collect();
    use SkillOwner::{Project, User};
    assert_eq!(owners, [Project, Project, Project, User]);
    assert_eq!(text(&reply.skills[0].path), "/p/.agents/skills/a/SKILL.md");
    assert_eq!(reply.skills[0].description, "what root-a does");
}

#[tokio::test]
async fn a_directory_that_is_both_the_projects_and_the_users_is_read_once() {
    let tree = Tree::new()
        .directory("/home/user/.git")
        .file("/home/user/.agents/skills/a/SKILL.md", front("a"));
    let reply = load(&tree, &usual("/home/user")).await;
    assert_eq!(names(&reply), ["a"]);
}

#[tokio::test]
async fn a_bad_skill_is_warned_of_and_fails_nothing() {
    let tree = project()
        .file("/p/.agents/skills/a/SKILL.md", "no front matter")
        .file("/p/.agents/skills/b/SKILL.md", "---\nname: endless\n")
        .file("/p/.agents/skills/c/SKILL.md", b"---\nname: \xff\xfe\n---\n")
        .directory("/p/.agents/skills/d/SKILL.md")
        .link("/p/.agents/skills/e", "/p/.agents/skills/e")
        .file("/p/.agents/skills/f/SKILL.md", "---\n: [}{\nname: f\n---\n")
        .file(
            "/p/.agents/skills/g/SKILL.md",
            format!("---\nx: {}\n---\n", "y".repeat(FRONT_MATTER_MAX_BYTES)),
        )
        .file("/p/.agents/skills/h/SKILL.md", front("good"));
    let reply = load(&tree, &usual("/p")).await;
    assert_eq!(names(&reply), ["\u{fffd}\u{fffd}", "f", "good"]);
    let bad: std::collections::BTreeSet<_> =
        reply.warnings.iter().map(|warning| text(&warning.path)).collect();
    let expected =
        ["a", "b", "c", "d", "e", "f", "g"].map(|name| format!("/p/.agents/skills/{name}/SKILL.md"));
    assert_eq!(bad.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn what_is_no_skill_is_passed_over_in_silence() {
    let tree = project()
        .file("/p/.agents/skills/README.md", "a file")
        .directory("/p/.agents/skills/empty")
        .file("/p/.agents/skills/.hidden/SKILL.md", front("hidden"))
        .link("/p/.agents/skills/dangling", "nowhere")
        .file("/elsewhere/linked/SKILL.md", front("linked"))
        .link("/p/.agents/skills/linked", "/elsewhere/linked");
    let reply = load(&tree, &usual("/p")).await;
    assert_eq!(names(&reply), ["linked"]);
    assert_eq!(reply.warnings, []);
}

#[tokio::test]
async fn only_front_matter_is_read() {
    let body = "x".repeat(1_000_000);
    let tree = project().file("/p/.agents/skills/a/SKILL.md", format!("{}{body}", front("a")));
    let reply = load(&tree, &usual("/p")).await;
    assert_eq!(names(&reply), ["a"]);
    assert_eq!(reply.warnings, []);
}

#[tokio::test]
async fn more_skills_than_fit_are_cut_in_their_order_and_flagged() {
    let many = (0..SKILLS_MAX + 5).fold(project(), |tree, at| {
        tree.file(
            &format!("/p/.agents/skills/s{at:04}/SKILL.md"),
            front(&format!("s{at:04}")),
        )
    });
    let reply = load(&many, &usual("/p")).await;
    assert_eq!(reply.skills.len(), SKILLS_MAX);
    assert!(reply.skills_truncated);
    assert_eq!(
        reply.skills.last().unwrap().name,
        format!("s{:04}", SKILLS_MAX - 1)
    );
    let little = WorkspaceLoad {
        text_max_bytes: 100,
        ..usual("/p")
    };
    let reply = load(&many, &little).await;
    assert!(
        reply.skills.len() == 5 && reply.skills_truncated,
        "{}",
        reply.skills.len()
    );
    assert_eq!(reply.skills[0].name, "s0000");
}

#[tokio::test]
async fn a_directory_with_too_many_names_is_warned_of() {
    let many = (0..=SKILL_ENTRIES_MAX).fold(project(), |tree, at| {
        tree.directory(&format!("/p/.agents/skills/s{at}"))
    });
    let tree = many.file("/p/x/.agents/skills/a/SKILL.md", front("a"));
    let reply = load(&tree, &usual("/p/x")).await;
    assert_eq!(names(&reply), ["a"]);
    assert_eq!(reply.warnings.len(), 1);
    assert_eq!(reply.warnings[0].code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn skills_ignore_a_failed_root_walk_with_a_warning_and_search_on() {
    let tree = project()
        .directory("/p/x/y")
        .file("/p/.agents/skills/a/SKILL.md", front("a"))
        .deny(b"/p/x/y");
    let reply = load(&tree, &usual("/p/x/y")).await;
    assert_eq!(names(&reply), ["a"]);
    assert!(
        reply
            .warnings
            .iter()
            .any(|warning| warning.code == ErrorCode::FileFailed)
    );
}

fn parse(front: &str) -> front_matter::FrontMatter {
    front_matter::parse(front.as_bytes(), true).unwrap()
}

#[test]
fn front_matter_is_read_leniently() {
    let read = parse(
        "\u{feff}---\r\nname: \"quoted: \\\"name\\\"\"\r\ndescription: >\r\n  folded over\r\n  two lines\r\n\
         license: MIT # a comment\r\nmetadata:\r\n  author: 'it''s me'\r\n  version: \"1.0\"\r\ntools:\r\n  - a\r\n  - b\r\n---\r\n",
    );
    assert_eq!(read.name.as_deref(), Some("quoted: \"name\""));
    assert_eq!(read.description.as_deref(), Some("folded over two lines"));
    let metadata: Vec<_> = read
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("license", "MIT"),
        ("author", "it's me"),
        ("version", "1.0"),
        ("tools", "- a - b"),
    ];
    assert_eq!(metadata, expected);
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    let kept = parse("---\ndescription: |\n  one\n  two\n\n  # three\nname: x\n---\n");
    assert_eq!(kept.description.as_deref(), Some("one\ntwo\n\n# three"));
    assert_eq!(kept.name.as_deref(), Some("x"));
    let plain = parse("---\ndescription: goes on\n  below\nname: http://x\n---");
    assert_eq!(plain.description.as_deref(), Some("goes on below"));
    assert_eq!(plain.name.as_deref(), Some("http://x"));
}

#[test]
fn front_matter_is_bounded_and_says_what_was_cut() {
    let mut long = format!("---\ndescription: {}\n", "é".repeat(DESCRIPTION_MAX_BYTES));
    for at in 0..=METADATA_MAX {
        long += &format!("k{at}: v\n");
    }
    let read = parse(&(long + "name: a\nname: b\n---\n"));
    assert_eq!(read.description.unwrap().len(), DESCRIPTION_MAX_BYTES);
    assert_eq!(read.metadata.len(), METADATA_MAX);
    assert_eq!(read.name.as_deref(), Some("a"));
    assert_eq!(read.problems.len(), 3, "{:?}", read.problems);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_reading_front_matter_fail_otherwise_than_by_a_word(
        lines in proptest::collection::vec("[ \t#:'\"|>\\-a-zé\u{0}]{0,12}", 0..20),
        whole in any::<bool>(),
        cut in 0usize..40,
    ) {
        let mut bytes = format!("---\n{}\n---\n", lines.join("\n")).into_bytes();
        if let Ok(read) = front_matter::parse(&bytes, whole) {
            prop_assert!(read.metadata.len() <= METADATA_MAX);
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        drop(front_matter::parse(&bytes, whole));
    }
}

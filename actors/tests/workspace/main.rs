//! Workspaces: finding up, the one-shot root hint, instructions, skills and repositories, each rule by its name, over file
//! systems that count what they are asked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod disk;
mod find_up;
mod gate;
mod hint;
mod random_trees;
mod repository;
mod skills;
mod spans;
mod tree;
mod wire;
mod world;

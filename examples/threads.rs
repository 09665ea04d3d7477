//! A conversation that is kept: appends wait for no disk, a barrier says what is safe, a list shows it.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use dwell::metadata_store::{Change, ThreadPatch, ThreadQuery};
use dwell::threads::{Append, Item, ItemKind, NewThread, Threads};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    let threads = Threads::builder(place.path().join("threads"))
        .store(place.path().join("runs.db"))
        .open()?;
    let thread = threads.create(NewThread::default()).await?;

    // Each of these returns when it has its place in a queue.
    thread
        .append(Item::now(ItemKind::Goal, "make the parser fast"))
        .await?;
    thread.append(Item::now(ItemKind::TurnStarted, "")).await?;
    let answer = Append::from(Item::now(ItemKind::AgentMessage, "done")).patch(ThreadPatch {
        model: Change::Set("some-model".into()),
        tokens_output: Some(1),
        ..ThreadPatch::default()
    });
    thread.append(answer).await?;

    // What this acknowledges survives a power cut.
    thread.flush().await?;
    for known in threads.list(ThreadQuery::default()).await?.threads {
        println!(
            "{}: {}, {} turn, {} items, by {}",
            known.id,
            known.name().unwrap_or("-"),
            known.turns,
            known.items,
            known.model.as_deref().unwrap_or("?"),
        );
    }
    for item in threads.history(thread.id())? {
        let item = item?;
        println!(
            "  {}: {}",
            item.kind.as_str(),
            String::from_utf8_lossy(&item.body)
        );
    }
    thread.shutdown().await?;
    Ok(())
}

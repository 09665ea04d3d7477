//! An agent's first turn: a model is asked, a command it calls for runs on the other machine, and its output goes back.
//! The model is played by a server on loopback; name a real one with `Responses::builder(Endpoint::default())`.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use dwell::responses::mock::{MockModel, first_turn};
use dwell::responses::{Request, Responses};
use dwell::{Command, Executor, Harness, Target, Turn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = dwell::relay::StaticKeypair::generate(&mut dwell::relay::OsRandomness::new())?;
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await?;
    let address = executor.local_addr().ok_or("the executor listens")?;
    let mock = MockModel::start(first_turn(&["uname", "-s"])).await?;

    // One span for all of it: the model's requests and the commands hang below.
    let turn = Turn::begin(true);
    let target = Target::direct(address, executor.public_key());
    let harness = Harness::builder()
        .identity(client)
        .parent(turn.context().clone())
        .connect(target)
        .await?;
    let guard = turn.on(&harness);
    let context = guard.turn().context().clone();

    // A real server wants a key: `.key(ApiKey::from_env("OPENAI_API_KEY")?)`.
    let model = Responses::builder(mock.endpoint()).beside(&harness)?;
    let schema = json!({ "type": "object", "properties": { "argv": { "type": "array", "items": { "type": "string" } } } });
    let mut request = Request::new("a-model")
        .function("shell", "Runs a program.", &schema)
        .parent(context.clone())
        .user("Which system is this?");
    loop {
        let answer = model.ask(request.clone()).finish().await?;
        println!("first token after {:?} µs", answer.timings.first_token_us);
        let calls = answer.calls();
        if calls.is_empty() {
            println!("{}", answer.text());
            break;
        }
        // The request grows; on the same connection only what is new is sent.
        request = request.output(&answer.output);
        for call in calls {
            let arguments: Value = serde_json::from_str(&call.arguments)?;
            let argv = arguments["argv"].as_array().ok_or("a list of arguments")?;
            // What a model calls for is not to be trusted: ask somebody, or let the executor's scopes bound it.
            let command = Command::from_argv(argv.iter().filter_map(Value::as_str)).parent(context.clone());
            let finished = harness.exec(command).wait().await?;
            println!("{:?} in {} µs", finished.status, finished.timings.total_us);
            request = request.function_output(&call.call_id, &finished.stdout.to_text());
        }
    }
    guard.finish();
    drop(model);
    harness.shutdown().await;
    executor.shutdown().await;
    Ok(())
}

//! The loop of a turn: ask, run what is called for, give it back, until there is an answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dwell_actors::responses::{
    ClientTimings, FunctionCall, Request, Responses, ResponsesError, ServerTimings,
};
use dwell_messages::TraceContext;

use super::approval::Approval;
use super::learn::Learned;
use super::shell::{self, Output};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::roles::{CommandSpec, Heard, Session};
use crate::cli::signals::Stop;

/// The longest a command takes before it is ended.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// What happened, and how long it took.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) answer: String,
    /// Why the answer was cut short, if it was.
    pub(super) incomplete: Option<String>,
    pub(super) connected: Duration,
    pub(super) learned: Learned,
    pub(super) requests: Vec<Asked>,
    pub(super) commands: Vec<Ran>,
    pub(super) total: Duration,
}

/// A request to the model.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) timings: ClientTimings,
    pub(super) server: Option<ServerTimings>,
    pub(super) attempts: u32,
}

/// A command that the model called for.
#[derive(Debug)]
pub(super) struct Ran {
    /// How many requests there had been.
    pub(super) after: usize,
    pub(super) argv: Vec<String>,
    pub(super) status: String,
    pub(super) took: Duration,
}

/// One turn under way.
pub(super) struct Agent<'a> {
    pub(super) session: &'a Session,
    pub(super) model: &'a Responses,
    pub(super) name: &'a str,
    pub(super) context: TraceContext,
    pub(super) cwd: Option<PathBuf>,
    pub(super) rounds: u32,
    pub(super) approval: Approval,
    /// Says on standard error what happens.
    pub(super) narrate: bool,
    pub(super) told: Told,
}

impl Agent<'_> {
    pub(super) async fn turn(&mut self, prompt: &str, stop: &mut Stop) -> Result<(), Failure> {
        self.say("workspace", &self.told.learned.said());
        self.say("you", prompt);
        let mut request = shell::offered(Request::new(self.name))
            .instructions(self.told.learned.instructions.clone())
            .parent(self.context.clone())
            .user(prompt);
        for _ in 0..self.rounds {
            let response = self.model.ask(request.clone()).finish();
            let answer = stop
                .or(async { response.await.map_err(|error| refused(&error)) })
                .await?;
            self.told.requests.push(Asked {
                timings: answer.timings,
                server: answer.server,
                attempts: answer.attempts,
            });
            let calls = answer.calls();
            if calls.is_empty() {
                self.told.answer = answer.text();
                self.told.incomplete = answer.incomplete;
                return Ok(());
            }
            request = request.output(&answer.output);
            for call in calls {
                let output = stop.or(self.call(&call)).await?;
                request = request.function_output(&call.call_id, &output);
            }
        }
        let asked = format!(
            "the model calls for more and more: there is no answer after {} rounds",
            self.rounds
        );
        Err(Failure::new("rounds", asked).advise("allow more with --rounds N, or ask for less"))
    }

    /// What is wrong with a call is the model's to hear; what is wrong with the link ends the turn.
    async fn call(&mut self, call: &FunctionCall) -> Result<String, Failure> {
        let argv = match shell::argv(call) {
            Ok(argv) => argv,
            Err(why) => {
                self.say(
                    "model",
                    &format!("calls {}, which cannot be done: {why}", call.name),
                );
                return Ok(shell::error(why));
            }
        };
        self.say("model", &format!("calls for: {}", argv.join(" ")));
        if !self.approval.asks_for(&argv).await? {
            return Ok(shell::error("the user does not want this run"));
        }
        let begun = Instant::now();
        let ran = self.run(&argv).await;
        let took = begun.elapsed();
        let (status, text) = match ran {
            Ok(output) => (output.status.clone(), output.to_text()),
            // It never ran, and the model may know better.
            Err(failure) if failure.is_about_the_command() => {
                (failure.message().to_owned(), shell::error(failure.message()))
            }
            Err(failure) => return Err(failure),
        };
        self.say("executor", &status);
        let after = self.told.requests.len();
        self.told.commands.push(Ran {
            after,
            argv,
            status,
            took,
        });
        Ok(text)
    }

    async fn run(&self, argv: &[String]) -> Result<Output, Failure> {
        let mut running = self.session.exec(CommandSpec {
            argv: argv.iter().map(Into::into).collect(),
            cwd: self.cwd.clone(),
            timeout: Some(COMMAND_TIMEOUT),
            parent: Some(self.context.clone()),
            ..CommandSpec::default()
        });
        let mut output = Output::default();
        while let Some(heard) = running.next().await {
            match heard {
                Heard::Stdout(data) => output.stdout.push(&data),
                Heard::Stderr(data) => output.stderr.push(&data),
                Heard::Withheld(_) => {}
            }
        }
        output.status = shell::status(&running.wait().await?);
        Ok(output)
    }

    fn say(&self, who: &str, what: &str) {
        if self.narrate {
            output::note(&format!("{who:<9} {what}"));
        }
    }
}

/// Why the model gave no answer, and what to do.
fn refused(error: &ResponsesError) -> Failure {
    let failure = Failure::of(error.kind(), error);
    match error {
        ResponsesError::Unreachable { .. } => {
            failure.advise("name another with --endpoint URL or $DWELL_MODEL_ENDPOINT")
        }
        ResponsesError::Unauthorized { .. } => {
            failure.advise("the key is taken from $OPENAI_API_KEY, or from the variable that --key-env names")
        }
        ResponsesError::Status { .. } | ResponsesError::Malformed { .. } => {
            failure.advise("an endpoint ends in the path of the Responses API, mostly /v1/responses")
        }
        ResponsesError::Refused { .. } => {
            failure.advise("name another model with --model NAME or $DWELL_MODEL")
        }
        ResponsesError::TimedOut { .. } => failure.advise("allow more with --timeout SECS"),
        ResponsesError::RateLimited { .. }
        | ResponsesError::Server { .. }
        | ResponsesError::TooLarge { .. }
        | ResponsesError::Interrupted
        | ResponsesError::NothingToWarm
        | ResponsesError::Busy { .. }
        | ResponsesError::Ended => failure,
    }
}

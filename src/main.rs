//! The binary `dwell`.

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // An executor runs this program again as the guard of its commands: then this does not return.
    dwell::guard::init();
    cli::main()
}

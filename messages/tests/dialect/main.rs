//! The JSON dialect, as a stock client writes and reads it.

mod calls;
mod frames;
mod golden;
mod hostile;
mod paths;

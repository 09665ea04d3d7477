//! The one fault that a real system shows too rarely: a pidfd that cannot be opened.

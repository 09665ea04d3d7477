//! Every kind of frame and message dwell puts on a wire, in one place.
//!
//! Numbers are never reused. Two spaces: `OuterKind` is what a relay can see, `MessageKind` lies inside the seal.

/// Declares a registry: a fieldless enum over `u8` with `from_wire` and `ALL`.
macro_rules! registry {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $value,)* }

        impl $name {
            /// Every kind, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The kind with this number, if there is one.
            pub const fn from_wire(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// This kind's number.
            pub const fn to_wire(self) -> u8 {
                self as u8
            }
        }
    };
}

registry! {
    /// Frames in the clear: between an endpoint and a relay, or between two endpoints.
    OuterKind {
        /// A handshake message of the stream (end to end), or of a registration (with the relay).
        Handshake = 0x01,
        /// Relay to executor: a harness asks for it. Payload: the harness's preamble, then message 1.
        Open = 0x02,
        /// One sealed record.
        Data = 0x03,
        /// The stream is over: a reason code. Also the uniform answer to whoever is not admitted.
        Reset = 0x04,
        /// Bytes of sealed records the receiver of this frame may have sent in all on this stream.
        Window = 0x05,
        /// Clear and unauthenticated: a version, suite or registration that is not served. Reported, never acted on.
        Refused = 0x06,
        /// Relay to executor: the registration is proven and in force.
        Registered = 0x07,
        /// Is this connection alive? Carries 8 opaque bytes.
        Ping = 0x08,
        /// The answer to a ping, with its 8 bytes.
        Pong = 0x09,
    }
}

registry! {
    /// Messages inside the seal. Requests are below 0x40, their responses carry the same number plus 0x40.
    MessageKind {
        /// What is this environment?
        EnvironmentInfo = 0x01,
        /// Start a process.
        Start = 0x02,
        /// Write to a process's standard input, or close it.
        Write = 0x03,
        /// Send a signal to a process.
        Signal = 0x04,
        /// End a process: TERM, grace, KILL.
        Terminate = 0x05,
        /// Events of a process after a sequence number, for whoever missed a push.
        Read = 0x06,
        /// Give a process's terminal another size.
        Resize = 0x07,
        /// Which sessions has this client here?
        Sessions = 0x08,
        /// What does a path lead to?
        FileMetadata = 0x10,
        /// Read a part of a file.
        FileRead = 0x11,
        /// Write a small file.
        FileWrite = 0x12,
        /// What lies in a directory?
        FileList = 0x13,
        /// Create a directory.
        FileCreateDirectory = 0x14,
        /// Remove a name, and what lies below it.
        FileRemove = 0x15,
        /// Copy a file or a directory.
        FileCopy = 0x16,
        /// Give a file or directory another name.
        FileRename = 0x17,
        /// Where does a path lead, without links?
        FileCanonicalize = 0x18,
        /// What lies below a directory?
        FileWalk = 0x19,
        /// The next page of a walk.
        FileWalkOn = 0x1a,
        /// Open a file.
        FileOpen = 0x1b,
        /// Read a block of an open file.
        FileReadBlock = 0x1c,
        /// Write a block of an open file.
        FileWriteBlock = 0x1d,
        /// Close an open file.
        FileClose = 0x1e,
        /// Watch for paths that are missing.
        FileWatch = 0x1f,
        /// Make an HTTP request.
        HttpOpen = 0x20,
        /// The next part of its body.
        HttpSend = 0x21,
        /// Draw the next part of its answer's body.
        HttpRead = 0x22,
        /// Give it up.
        HttpClose = 0x23,
        /// Wait until a watch has seen something.
        FileAwait = 0x24,
        /// The nearest directory upwards that holds one of some names.
        FindUp = 0x30,
        /// Instructions, skills and repository around a directory.
        WorkspaceLoad = 0x31,
        /// Answer to `EnvironmentInfo`.
        EnvironmentInfoReply = 0x41,
        /// Answer to `Start`.
        Started = 0x42,
        /// Answer to `Write`.
        Written = 0x43,
        /// Answer to `Signal`.
        Signalled = 0x44,
        /// Answer to `Terminate`.
        Terminated = 0x45,
        /// Answer to `Read`.
        ReadReply = 0x46,
        /// Answer to `Resize`.
        Resized = 0x47,
        /// Answer to `Sessions`.
        SessionsReply = 0x48,
        /// Answer to `FileMetadata`.
        FileMetadataReply = 0x50,
        /// Answer to `FileRead`.
        FileContents = 0x51,
        /// Answer to `FileWrite`.
        FileWritten = 0x52,
        /// Answer to `FileList`.
        FileListing = 0x53,
        /// Answer to `FileCreateDirectory`.
        FileDirectoryCreated = 0x54,
        /// Answer to `FileRemove`.
        FileRemoved = 0x55,
        /// Answer to `FileCopy`.
        FileCopied = 0x56,
        /// Answer to `FileRename`.
        FileRenamed = 0x57,
        /// Answer to `FileCanonicalize`.
        FileCanonical = 0x58,
        /// Answer to `FileWalk`.
        FileWalked = 0x59,
        /// Answer to `FileWalkOn`.
        FileWalkedOn = 0x5a,
        /// Answer to `FileOpen`.
        FileOpened = 0x5b,
        /// Answer to `FileReadBlock`.
        FileBlock = 0x5c,
        /// Answer to `FileWriteBlock`.
        FileBlockWritten = 0x5d,
        /// Answer to `FileClose`.
        FileClosed = 0x5e,
        /// Answer to `FileWatch`.
        FileWatching = 0x5f,
        /// Answer to `HttpOpen`.
        HttpHead = 0x60,
        /// Answer to `HttpSend`.
        HttpSent = 0x61,
        /// Answer to `HttpRead`.
        HttpBody = 0x62,
        /// Answer to `HttpClose`.
        HttpClosed = 0x63,
        /// Answer to `FileAwait`.
        FileSeen = 0x64,
        /// Answer to `FindUp`.
        FoundUp = 0x70,
        /// Answer to `WorkspaceLoad`.
        WorkspaceLoaded = 0x71,
        /// The answer to any request that failed.
        Error = 0x7f,
        /// Bytes a process wrote.
        Output = 0x80,
        /// A process's wait status is known.
        Exited = 0x81,
        /// Every pipe of a process is at its end: nothing follows.
        Closed = 0x82,
        /// Output that nobody can have any more.
        Gap = 0x83,
        /// The caller of a request no longer waits.
        Cancel = 0xa0,
        /// Everything up to a sequence number has been applied.
        Ack = 0xa1,
        /// How far a process's stream may be sent.
        Credit = 0xa2,
        /// A round trip on the link.
        Ping = 0xa3,
        /// The answer to a ping.
        Pong = 0xa4,
        /// The authenticated end of a link.
        Goodbye = 0xa5,
        /// A fresh link for a session whose last one died.
        Resume = 0xa6,
        /// The session goes on over this link.
        Resumed = 0xa7,
        /// It does not.
        ResumeRefused = 0xa8,
        /// Span records of one trace, behind its terminal event.
        TraceRecords = 0xc0,
    }
}

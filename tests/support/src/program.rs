//! A file that is going to be executed.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes an executable file that nobody has open for writing when this returns, this process's children included.
///
/// Written here it would be busy (`ETXTBSY`) for as long as a child that another thread has just forked has not executed
/// its own program yet: until then the child has what this process had open.
///
/// # Errors
/// When `cat` cannot be started, or the file cannot be written.
pub fn write_program(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()?;
    let written = writer.stdin.take().map(|mut to| to.write_all(content));
    if !writer.wait()?.success() {
        return Err(io::Error::other(format!("{} cannot be written", path.display())));
    }
    written.transpose()?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

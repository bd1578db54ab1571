//! Files that hold secrets: never readable by others, never half-written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Writes `content` so that a reader sees all of it or what was there before, readable by the owner alone (0600).
///
/// The data is on disk when this returns. Errors are those of the file system, with the path.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    };
    let temporary = dir.join(format!(
        ".{}.{}",
        name.to_string_lossy(),
        uuid::Uuid::new_v4().simple()
    ));
    let written = create_private(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left of a failed write is of no use; that it can not be removed changes nothing about the error.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename itself is durable only with its directory.
    fs::File::open(dir)?.sync_all()
}

fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn is_private_and_replaces() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn an_error_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none").join("key");
        let error = write_private(&path, b"x").unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}

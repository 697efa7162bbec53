//! Names in the file system that stand for the running process. A successor makes its own beside them and moves them into
//! place in one step, so that each name always leads to a process that serves.

use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::channel::Desk;
use super::{HandoverError, desk_path};

/// Of one process: its admin socket, its desk, its pid file.
pub struct Names {
    admin: UnixListener,
    desk: Desk,
    places: Places,
}

pub struct Places {
    sockets: [Staged; 2],
    pid_file: PathBuf,
}

impl Names {
    /// What is left of a process that has gone is replaced; a process that answers is not, unless it is the one whose
    /// place is to be taken.
    pub fn make(data_dir: &Path, admin: &Path, in_place_of_another: bool) -> Result<Self, HandoverError> {
        let desk = desk_path(data_dir);
        if !in_place_of_another {
            let answering = [(Desk::answers(&desk), desk.as_path()), (UnixStream::connect(admin).is_ok(), admin)];
            if let Some((_, path)) = answering.iter().find(|(answers, _)| *answers) {
                return Err(HandoverError::InUse(path.display().to_string()));
            }
        }
        let failed = |path: &Path, error| HandoverError::Socket(path.display().to_string(), error);
        let (admin_socket, staged_admin) =
            Staged::socket(admin, |path| UnixListener::bind(path)).map_err(|error| failed(admin, error))?;
        let (desk_socket, staged_desk) = Staged::socket(&desk, Desk::bind).map_err(|error| failed(&desk, error))?;
        let places = Places { sockets: [staged_admin, staged_desk], pid_file: data_dir.join("proxy.pid") };
        Ok(Self { admin: admin_socket, desk: desk_socket, places })
    }

    pub fn into_parts(self) -> (UnixListener, Desk, Places) {
        (self.admin, self.desk, self.places)
    }
}

impl Places {
    /// From here on the names lead to this process.
    pub fn take(self) -> Result<PidFile, HandoverError> {
        for staged in self.sockets {
            let place = staged.place.display().to_string();
            staged.put_in_place().map_err(|error| HandoverError::Socket(place, error))?;
        }
        let shown = self.pid_file.display().to_string();
        PidFile::write(self.pid_file).map_err(|error| HandoverError::Socket(shown, error))
    }
}

/// Made, and not yet at its place.
struct Staged {
    made: PathBuf,
    place: PathBuf,
}

impl Staged {
    /// A socket that only its owner opens: others can't, not even for the moment between bind and chmod.
    fn socket<T>(place: &Path, bind: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<(T, Self)> {
        // Not longer than the place itself: the path of a socket is limited to 107 bytes.
        let made = place.with_extension("new");
        match std::fs::remove_file(&made) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let bound = bind(&made)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        Ok((bound, Self { made, place: place.to_owned() }))
    }

    /// Whatever stood there before keeps working for those who have it open.
    fn put_in_place(self) -> std::io::Result<()> {
        std::fs::rename(&self.made, &self.place)
    }
}

/// Names the running process to service managers and people. Removed when that process ends.
pub struct PidFile {
    path: PathBuf,
    pid: String,
}

impl PidFile {
    fn write(path: PathBuf) -> std::io::Result<Self> {
        let pid = format!("{}\n", std::process::id());
        let made = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&made)?;
        std::io::Write::write_all(&mut file, pid.as_bytes())?;
        std::fs::rename(&made, &path)?;
        Ok(Self { path, pid })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // By then it may be the successor's.
        if std::fs::read_to_string(&self.path).is_ok_and(|pid| pid == self.pid) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_before_it_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.sock");
        let old = UnixListener::bind(&place).unwrap();
        let (new, staged) = Staged::socket(&place, |path| UnixListener::bind(path)).unwrap();
        assert_eq!(std::fs::metadata(&staged.made).unwrap().permissions().mode() & 0o777, 0o600);
        old.set_nonblocking(true).unwrap();
        let _to_old = UnixStream::connect(&place).unwrap();
        assert!(old.accept().is_ok(), "until then the name leads to the old one");
        staged.put_in_place().unwrap();
        let _to_new = UnixStream::connect(&place).unwrap();
        assert!(old.accept().is_err() && new.accept().is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pid_file_goes_with_its_process_unless_it_is_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.pid");
        let ours = PidFile::write(path.clone()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        std::fs::write(&path, "1\n").unwrap();
        drop(ours);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        drop(PidFile::write(path.clone()).unwrap());
        assert!(!path.exists());
    }
}

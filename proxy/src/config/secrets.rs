//! Files named by the boot file. A private one must be readable by its owner only.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use zeroize::Zeroizing;

use super::ConfigError;

pub(super) fn read_text(path: &str) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}

pub(super) fn read_private(path: &str) -> Result<Zeroizing<String>, ConfigError> {
    let failed = |error| ConfigError::Read { path: path.to_owned(), error };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Setting(format!(
            "{path}: mode is {mode:04o}, others may read this secret; run `chmod 600 {path}`"
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_secret_that_others_may_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, "s3cret").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(path).unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(&*read_private(path).unwrap(), "s3cret");
    }
}

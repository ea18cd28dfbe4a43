//! What this program is called.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Options of the interpreter that are followed by a word of their own.
const WITH_A_WORD: [&[u8]; 3] = [b"-W", b"-X", b"--check-hash-based-pycs"];

/// The name of this program: the last part of the path that it was started by, and for a Python program that of its script.
pub(crate) fn program_name() -> String {
    let words: Vec<_> = std::env::args_os().collect();
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    named(&words)
}

fn named(words: &[&[u8]]) -> String {
    let name = last_part(words.first().copied().unwrap_or_default());
    if is_python(&name) { script(&words[1..]).unwrap_or_else(|| "python".into()) } else { name }
}

fn last_part(path: &[u8]) -> String {
    let name = Path::new(std::ffi::OsStr::from_bytes(path)).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn is_python(name: &str) -> bool {
    let version = name.strip_prefix("python");
    version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// What the interpreter was told to run: a script, or the last part of the name of a module.
fn script(words: &[&[u8]]) -> Option<String> {
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            b"-c" | b"-" | b"" => return None,
            b"-m" => return words.next().map(|module| last_name(&String::from_utf8_lossy(module))),
            _ if WITH_A_WORD.contains(&word) => _ = words.next(),
            _ if word.starts_with(b"-") => {}
            _ => return Some(last_part(word)),
        }
    }
    None
}

fn last_name(module: &str) -> String {
    module.rsplit('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &str) -> String {
        named(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn a_program_is_called_as_it_was_started() {
        assert_eq!(name("/usr/bin/oping -n x"), "oping");
        assert_eq!(name("./oecho"), "oecho");
        assert_eq!(name("pythonista"), "pythonista");
    }

    #[test]
    fn a_python_program_is_called_as_its_script() {
        assert_eq!(name("/usr/bin/python3.11 /srv/echo.py -l"), "echo.py");
        assert_eq!(name("python -u -W ignore echo.py"), "echo.py");
        assert_eq!(name("python3 -m some.where.server"), "server");
        assert_eq!(name("python3 -c pass"), "python");
        assert_eq!(name("python3"), "python");
    }
}

//! What is promised of settings.

use super::*;
use std::os::unix::ffi::OsStrExt;

const EXAMPLE: &str = include_str!("../../../depot.example.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.read_toml(text, "depot.toml").map(|()| config)
}

/// `depot.example.toml` with every key uncommented.
fn uncommented() -> String {
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if is_key(key) => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_documents_every_key_with_its_default() {
    assert_eq!(parse(&uncommented()).unwrap(), Config::default());
    let parsed = uncommented();
    let table = DeTable::parse(&parsed).unwrap();
    for def in KEYS {
        let found = match def.name.split_once('.') {
            Some((section, key)) => match table.get_ref().get(section).map(|v| v.get_ref()) {
                Some(DeValue::Table(section)) => section.contains_key(key),
                _ => false,
            },
            None => table.get_ref().contains_key(def.name),
        };
        assert!(found, "{} is not in the example", def.name);
    }
}

#[test]
fn an_example_left_as_it_is_changes_nothing() {
    assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let message = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        message("\n[library]\npack_sise = \"1GiB\"\n"),
        "depot.toml line 3: there is no setting library.pack_sise; the nearest is library.pack_size"
    );
    assert!(
        message("lissen = \"0.0.0.0:1\"")
            .ends_with("line 1: there is no setting lissen; the nearest is listen")
    );
    assert!(message("gc_grace = \"24h\"").contains("nearest is library.gc_grace"));
    assert!(message("[libary]").ends_with("there is no setting libary; the nearest is library"));
    assert!(message("library = 3").contains("there is no setting library;"));
    assert!(message("[library.pack_size]\nx = 1").contains("library.pack_size must be a size"));
}

#[test]
fn a_wrong_value_names_key_and_line() {
    let message = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(
        message("[library]\n\ncache = true"),
        "depot.toml line 3: library.cache must be a size such as \"256MiB\", not true"
    );
    assert_eq!(
        message("[jobs]\nconcurrent = \"2\""),
        "depot.toml line 2: jobs.concurrent must be a whole number, 0 or more, not \"2\""
    );
    assert!(message("[library]\ngc_grace = \"0\"").contains("must be at least 10min"));
    assert!(message("[library]\ngc_grace = 30").contains("with its unit"));
    assert!(message("listen = \"8520\"").contains("must be an address and port"));
    assert!(message("[log]\nformat = \"xml\"").contains("\"text\" or \"json\""));
    assert!(message("[log\n").starts_with("depot.toml line 1: "));
    assert!(message("a = 1\na = 1\n").starts_with("depot.toml line 2: "));
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("depot.toml");
    let text =
        "data = \"here\"\nlisten = \"127.0.0.1:1\"\n[library]\ncache = \"64MiB\"\nthreads = 1";
    std::fs::write(&path, text).unwrap();
    let set = vec![("library.threads".to_owned(), "3".to_owned())];
    let mut options = Options { config: Some(path.clone()), set, ..Options::default() };
    let environment = [
        ("DEPOT_LISTEN", "127.0.0.1:2"),
        ("DEPOT_LIBRARY_CACHE", "32MiB"),
        ("DEPOT_LIBRARY_THREADS", "2"),
        ("DEPOT_LOG_ACCESS", "false"),
        ("DEPOT_URL", "http://elsewhere"),
        ("DEPOT_NATIVE_CACHE", "another program's"),
        ("PATH", "/bin"),
    ]
    .map(|(name, value)| (name.into(), value.into()));
    let config = Config::load(&options, environment.clone()).unwrap();
    assert_eq!(config.data, folder.path().join("here"), "a relative folder is beside its file");
    assert_eq!(config.listen.port(), 2);
    assert_eq!(config.library.cache, ByteSize(32 << 20));
    assert_eq!(config.library.threads, 3);
    assert!(!config.log.access);
    options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 4)));
    options.data = Some("elsewhere".into());
    let config = Config::load(&options, environment).unwrap();
    assert_eq!((config.listen.port(), config.data), (4, PathBuf::from("elsewhere")));
    let from_environment = [("DEPOT_CONFIG".into(), path.into())];
    assert_eq!(Config::load(&Options::default(), from_environment).unwrap().listen.port(), 1);
}

#[test]
fn a_relative_folder_is_beside_its_file_even_if_it_is_called_as_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("depot.toml");
    let data = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let options = Options { config: Some(path.clone()), ..Options::default() };
        Config::load(&options, []).unwrap().data
    };
    assert_eq!(data("data = \"depot-data\""), folder.path().join("depot-data"));
    assert_eq!(data("data = \"/srv/depot\""), PathBuf::from("/srv/depot"));
    assert_eq!(data("[library]"), PathBuf::from("depot-data"), "not of the file");
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_if_it_is_a_setting() {
    let not_utf8 = OsStr::from_bytes(b"a\xff");
    let load =
        |name: &OsStr| Config::load(&Options::default(), [(name.to_owned(), not_utf8.to_owned())]);
    for other in [OsStr::new("PATH"), OsStr::new("DEPOT_NATIVE_CACHE"), not_utf8] {
        assert_eq!(load(other), Ok(Config::default()), "{other:?}");
    }
    let error = load(OsStr::new("DEPOT_LOG_LEVEL")).unwrap_err().to_string();
    assert_eq!(error, "DEPOT_LOG_LEVEL: log.level must be UTF-8");
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    let load = |name: &str, value: &str| {
        let environment = [(name.into(), value.into())];
        Config::load(&Options::default(), environment).unwrap_err().to_string()
    };
    assert_eq!(
        load("DEPOT_LIBRARY_CASH", "1"),
        "environment: there is no setting DEPOT_LIBRARY_CASH; the nearest is DEPOT_LIBRARY_CACHE"
    );
    assert!(load("DEPOT_JOBS_KEEP", "many").starts_with("DEPOT_JOBS_KEEP: jobs.keep must be"));
    let set = vec![("jobs.kep".to_owned(), "1".to_owned())];
    let options = Options { set, ..Options::default() };
    let error = Config::load(&options, []).unwrap_err().to_string();
    assert!(error.starts_with("--set jobs.kep: there is no setting"), "{error}");
    let options = Options { config: Some("/does/not/exist".into()), ..Options::default() };
    assert!(matches!(Config::load(&options, []), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn settings_are_written_as_they_are_read() {
    let mut config = Config::default();
    let written = config.settings();
    assert_eq!(written.len(), KEYS.len());
    for (key, value) in written {
        config.set(key, Raw::Text(&value), &String::new).unwrap();
    }
    assert_eq!(config, Config::default());
}

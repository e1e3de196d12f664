//! Bearer tokens of publishers: a file of names, rights and hashes. The tokens themselves are nowhere but with who uses
//! them.

use crate::{
    protocol::{Hash, Prefix},
    tls::{BadIdentity, Grant, write_secret},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Tokens begin so, to be found where they should not be.
const MARK: &str = "acms_";

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read or written.
    #[error("{path} cannot be used: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no file of tokens.
    #[error("{path}: {source}; `acms token` writes it")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A name is wrong.
    #[error("{path}: {source}")]
    Name {
        /// In which file.
        path: PathBuf,
        /// What is wrong.
        source: BadIdentity,
    },
    /// A prefix is wrong.
    #[error("{path}: {text:?} is no prefix of paths")]
    Prefix {
        /// In which file.
        path: PathBuf,
        /// What is written.
        text: String,
    },
}

#[derive(Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    hash: Hash,
    #[serde(default)]
    under: Vec<String>,
}

/// Who has which token, by its hash.
#[derive(Clone, Debug, Default)]
pub struct Tokens(BTreeMap<Hash, Arc<Grant>>);

impl Tokens {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Tokens, TokenError> {
        let mut tokens = BTreeMap::new();
        for Entry { name, hash, under } in read(path)?.token {
            let prefix = |text: &String| {
                text.parse::<Prefix>().map_err(|_| TokenError::Prefix { path: path.to_owned(), text: text.clone() })
            };
            let under = under.iter().map(prefix).collect::<Result<Vec<_>, _>>()?;
            let grant =
                Grant::new(&name, under).map_err(|source| TokenError::Name { path: path.to_owned(), source })?;
            tokens.insert(hash, Arc::new(grant));
        }
        Ok(Tokens(tokens))
    }

    /// Whose token it is. The look-up is by hash: how long it takes tells nothing of the tokens.
    pub fn find(&self, token: &str) -> Option<Arc<Grant>> {
        self.0.get(&Hash::of(token.as_bytes())).cloned()
    }
}

fn read(path: &Path) -> Result<TokenFile, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| TokenError::Parse { path: path.to_owned(), source: Box::new(source) })
}

/// A new token.
pub fn generate() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(MARK.to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// Adds a token to a file, which is made if absent and replaced as a whole.
pub fn add(path: &Path, token: &str, grant: &Grant) -> Result<(), TokenError> {
    let failed = |source| TokenError::File { path: path.to_owned(), source };
    let mut file = if path.exists() { read(path)? } else { TokenFile::default() };
    let hash = Hash::of(token.as_bytes());
    file.token.push(Entry {
        name: grant.name.clone(),
        hash,
        under: grant.under.iter().map(ToString::to_string).collect(),
    });
    let text = toml::to_string(&file).map_err(|error| failed(io::Error::other(error)))?;
    let text = format!("# Who may publish by a token: made by `acms token`; a hash is BLAKE3 of the token.\n\n{text}");
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    write_secret(&temporary, text.as_bytes()).and_then(|()| fs::rename(&temporary, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let grants = [("deploy", vec!["etc".parse().unwrap()]), ("all", vec![])];
        let grants = grants.map(|(name, under)| Grant::new(name, under).unwrap());
        let tokens = grants.clone().map(|grant| {
            let token = generate().unwrap();
            add(&path, &token, &grant).unwrap();
            token
        });
        assert_ne!(tokens[0], tokens[1]);
        let file = fs::read_to_string(&path).unwrap();
        assert!(!file.contains(&tokens[0]), "the file has no token in it");
        let loaded = Tokens::load(&path).unwrap();
        for (token, grant) in tokens.iter().zip(&grants) {
            assert_eq!(loaded.find(token).as_deref(), Some(grant));
        }
        assert!(loaded.find("").is_none() && loaded.find("acms_00").is_none());
        fs::write(&path, "[[token]]\nname = \"a\"\nhash = \"12\"\n").unwrap();
        assert!(Tokens::load(&path).unwrap_err().to_string().contains("tokens.toml"));
    }
}

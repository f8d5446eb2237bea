//! A Redis client of a few lines, without a runtime: what `redis-cli` would do. It never pipelines and never subscribes.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

#[cfg(unix)]
use std::os::unix::net::UnixStream;

/// Longer than any command of a test takes; a paused server answers none.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client<S>(BufReader<S>);

/// What the server answered: the text as `redis-cli` prints it, or the error's text.
pub(crate) type Reply = Result<String, String>;

/// Sends `commands` over a new connection, one after the other, and returns the last reply.
pub(crate) fn ask(address: &Address, commands: &[&[&str]]) -> io::Result<Reply> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Client(BufReader::new(stream)).all(commands)
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Client(BufReader::new(stream)).all(commands)
        }
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

impl<S: Read + Write> Client<S> {
    fn all(&mut self, commands: &[&[&str]]) -> io::Result<Reply> {
        let mut last = Ok(String::new());
        for command in commands {
            self.0.get_mut().write_all(&request(command))?;
            last = self.reply()?;
            if last.is_err() {
                break;
            }
        }
        Ok(last)
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        Ok(match kind {
            "-" => Err(rest.to_owned()),
            "$" => match number(rest)? {
                None => Ok("(nil)".to_owned()),
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Ok(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => match number(rest)? {
                None => Ok("(nil)".to_owned()),
                Some(length) => {
                    // All of it is read even if an element is an error (EXEC): the connection stays in step.
                    let parts = (0..length).map(|_| self.reply()).collect::<io::Result<Vec<_>>>()?;
                    parts.into_iter().collect::<Result<Vec<_>, _>>().map(|parts| parts.join("\n"))
                }
            },
            _ => Ok(rest.to_owned()),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A length; `None` for the -1 that stands for nil.
fn number(text: &str) -> io::Result<Option<usize>> {
    let number: i64 = text.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(usize::try_from(number).ok())
}

fn request(command: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", command.len());
    for word in command {
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Reads one reply from `bytes`.
    fn read(bytes: &str) -> io::Result<Reply> {
        Client(BufReader::new(Cursor::new(bytes.as_bytes().to_vec()))).reply()
    }

    #[test]
    fn replies_read_as_redis_cli_prints_them() {
        let text = |bytes| read(bytes).unwrap().unwrap();
        assert_eq!(text("+OK\r\n"), "OK");
        assert_eq!(text(":-12\r\n"), "-12");
        assert_eq!(text("$5\r\na\r\nbc\r\n"), "a\r\nbc");
        assert_eq!(text("$-1\r\n"), "(nil)");
        assert_eq!(text("*-1\r\n"), "(nil)");
        assert_eq!(text("*0\r\n"), "");
        assert_eq!(text("*3\r\n:1\r\n*2\r\n$1\r\na\r\n$0\r\n\r\n+b\r\n"), "1\na\n\nb");
    }

    #[test]
    fn errors_are_not_text() {
        assert_eq!(read("-ERR no\r\n").unwrap(), Err("ERR no".to_owned()));
        assert_eq!(read("*2\r\n-ERR no\r\n+OK\r\n").unwrap(), Err("ERR no".to_owned()));
        assert_eq!(read("").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read("+O").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read("$x\r\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn requests_count_bytes() {
        assert_eq!(request(&["SET", "é", ""]), "*3\r\n$3\r\nSET\r\n$2\r\né\r\n$0\r\n\r\n".as_bytes());
    }
}

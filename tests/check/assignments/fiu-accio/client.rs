use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let limit = Duration::from_secs(10);
    let address = (args[1].as_str(), args[2].parse::<u16>()?)
        .to_socket_addrs()?
        .next()
        .ok_or("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut command = Vec::new();
    let mut byte = [0u8];
    while !command.ends_with(b"accio\r\n") {
        stream.read_exact(&mut byte)?;
        command.push(byte[0]);
    }
    stream.write_all(&std::fs::read(&args[3])?)?;
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("ERROR: {error}");
        std::process::exit(1);
    }
}

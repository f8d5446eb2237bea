#![allow(dead_code, unused_variables)]

use messaging_core::subscribe;

#[subscribe]
async fn missing() {}

#[subscribe()]
async fn empty() {}

#[subscribe(timeout = 5)]
async fn options_only() {}

#[subscribe("")]
async fn empty_text() {}

#[subscribe([])]
async fn empty_list() {}

#[subscribe("camera created")]
async fn space() {}

#[subscribe("camera:{id")]
async fn open(id: u64) {}

#[subscribe("camera:{}")]
async fn nameless() {}

#[subscribe("camera:{id}*")]
async fn glob(id: u64) {}

#[subscribe(["a:{id}", "b:{id}", "a:{id}", "c:{camera_id}", "d"])]
async fn several(id: u64) {}

#[subscribe(["a", 5, AuditLog])]
async fn kinds() {}

#[subscribe(5)]
async fn number() {}

#[subscribe(Camera(update))]
async fn model() {}

fn main() {}

fn get(id: u64) -> Camera {
    load(id)
}
::core::compile_error! {
    "unknown option `kye`; did you mean `key`? the options are `key`, `ttl`, `invalidate_on`, `local`, `stale`, `wait`, `jitter`, `cache_none`, `prefix`, `id`, `companions` and `crate`"
}
::core::compile_error! {
    "`ttl` is given twice; remove one of them"
}
::core::compile_error! {
    "\"soon\" is not a duration; write seconds, such as `30`, or text such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"7d\""
}
::core::compile_error! {
    "a cached function needs an async function; write `async fn`"
}

//! Public keys and tokens that PyJWT has made. The private keys are thrown away.

/// The key of [`RS256_TOKEN`].
pub(super) const RS256_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzU6ZkJtng6sLIv95F5ea
v2SMMQj3REovXwxp1b1FkAa1c1pfKgVJGY9q5bNcDqeQxvCiRgHw0M2AoXZ2y1Ui
ggDKhS3By40jnf146BfylQKl+iLiSqvrGOh7NxjA1E3dAzD6CGyNk+JodKbGLSuC
Eo83uVawlkucR3ykmN/PghXZXDdvKx9W+YG4NvMWyJZqC7CnQ8HEkZMhbDIn6DtI
KXUKAZflxGWxu1Q6ysioNG0ynf1mFjs7sZwKw94L3/y3UdwvdmMAnwvH6qgNuymg
cEKFeLV56m4lResqqnu3hvwFlZAOZoViMfOMYn73pZSj/4Y+aqNjc09SmUCe6eKO
eQIDAQAB
-----END PUBLIC KEY-----
";

/// The same in the older form.
pub(super) const RS256_PKCS1_PEM: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAzU6ZkJtng6sLIv95F5eav2SMMQj3REovXwxp1b1FkAa1c1pfKgVJ
GY9q5bNcDqeQxvCiRgHw0M2AoXZ2y1UiggDKhS3By40jnf146BfylQKl+iLiSqvr
GOh7NxjA1E3dAzD6CGyNk+JodKbGLSuCEo83uVawlkucR3ykmN/PghXZXDdvKx9W
+YG4NvMWyJZqC7CnQ8HEkZMhbDIn6DtIKXUKAZflxGWxu1Q6ysioNG0ynf1mFjs7
sZwKw94L3/y3UdwvdmMAnwvH6qgNuymgcEKFeLV56m4lResqqnu3hvwFlZAOZoVi
MfOMYn73pZSj/4Y+aqNjc09SmUCe6eKOeQIDAQAB
-----END RSA PUBLIC KEY-----
";

/// Too short.
pub(super) const RSA_1024_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCr1qYjadHsK8Ateo5jojCLv7iJ
jej4J8V7Q8vGL7KerBACE3kAzVvtU2soiMO6sUOrx8P/jZMZLPPh270U6htpcKo0
RayJlQaG2glwTs0C6DAs6A2prU7ITngOuQId6cpX+Vu4XMrVkUYspP2iidgKj9xD
IGkPqOzgTYkWKysPkwIDAQAB
-----END PUBLIC KEY-----
";

/// The key of [`ES256_TOKEN`].
pub(super) const ES256_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgKQm1dM+YeTC0V9+zR2f+wETSvjZ
qn3FXtd62UUoewj/xFHKMYz3lz79bUFYZpKkzkyOBd/tJsj5LLce2YQRpA==
-----END PUBLIC KEY-----
";

/// Of another curve.
pub(super) const P384_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEU5xBWWVvqqt3NC2ZRbPU1XZ7If1gJGD3
h2WVM+e6PMeEnSX2fjU1UE4vcQYLEg1qRPZAD1NAEjdTnC4BHr5F7jYxh8rR7i8Q
L2kGoh3sjXgLqcLpmLWPbCQQVqB6Vo1m
-----END PUBLIC KEY-----
";

/// `{"sub":"ada","exp":4102444800,"iat":1700000000,"info":{"name":"Ada"},"roles":["guard"]}`, as the others.
pub(super) const HS256_TOKEN: &str = "\
    eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDAsImlhdCI6MTcwMDAwMDA\
    wMCwiaW5mbyI6eyJuYW1lIjoiQWRhIn0sInJvbGVzIjpbImd1YXJkIl19.BDevOJZLsutKFtLopDMDOfBA76KrT7gi2Uu874\
    vyAnw";

pub(super) const RS256_TOKEN: &str = "\
    eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDAsImlhdCI6MTcwMDAwMDA\
    wMCwiaW5mbyI6eyJuYW1lIjoiQWRhIn0sInJvbGVzIjpbImd1YXJkIl19.CKmUEHfoNtavHEthvshAgOFlwnsHautWJBwX55\
    vfBvON3bTaBso2NADplTO2jinhGqjN2l5Rw0GCR1ZScPRCv5QSw22Bji9EJbx21bGe4icLzpn_gC0NT9UqnFj2lD49aarveJ\
    zBMlc7xJvhxMqn6q6aFS2WhEZDmtW6IwHskNBt3KhOD-dpsj78uwDA53W3tm5-rKWCMfE0bEpShbFMR8EYVY1uScYij6wdF2\
    5897K4xcsv3FE8uZeZdGuQpZDRiCmrZEoVZgQCSAmZKzBjatA_kKEJ6I_35VTC_DLreYjkSAAcnZGPwym19YvBixbFkaTwEW\
    m85rnUsWrF--Vngw";

pub(super) const ES256_TOKEN: &str = "\
    eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDAsImlhdCI6MTcwMDAwMDA\
    wMCwiaW5mbyI6eyJuYW1lIjoiQWRhIn0sInJvbGVzIjpbImd1YXJkIl19.OzoBcyQcOISH9lnvtcUfko2V82IXAlNiYudXhY\
    nkBm_I9R4g0LPVdVDoQbqV9Zjzf94_0EWA91yvBJk7veKsKg";

/// Signed with the RSA key, but padded in another way.
pub(super) const PS256_TOKEN: &str = "\
    eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDAsImlhdCI6MTcwMDAwMDA\
    wMCwiaW5mbyI6eyJuYW1lIjoiQWRhIn0sInJvbGVzIjpbImd1YXJkIl19.NQXRh0k4__wulAWYsz7Z-dknCopiFOiJAr5tKy\
    21xmJovhneHS1nooELNiXcYcXujVZB1eJ9MHv3wKk8oyIp1HPVYBTABY2P4sto1Vt5ID1qjNOrMIbOxVOFAbgKEnRlSv-fnQ\
    eq8LGm-rtu9cVe3hZ2tet3mLmTN8C6JFGqfNX5xd6oXZ556WzPUn6nakb6-sW3_-Z_6nfYO2rLOreuPZpQNouykeY75DR10f\
    HQTmh4pzYAOOCD6fo85OfrtbvAbQO4V3CUPalb0-Knejjqn0pcP-Wl_nrnOhztbW1M-onbgT5c4lYAdTCVE8YXG89eWg3Lto\
    T7Y7o0uGa16az0zA";

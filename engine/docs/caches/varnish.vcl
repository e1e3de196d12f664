# Varnish as a cache between receivers and storage points (6.0 or newer; tried with 7.1). What each line is for: README.md.
# Put in place of the words between @ signs: HOST1, PORT1, HOST2, PORT2 (the same again if there is but one source), and
# NAME (of this cache alone, letters and digits).
#
#   varnishd -f varnish.vcl -a LISTEN -s file,/var/lib/varnish/acms,10g -p thread_pool_max=2000 -t 0

vcl 4.1;

import directors;

probe healthz {
    .url = "/healthz";
    .interval = 2s;
    .timeout = 2s;
    .window = 3;
    .threshold = 2;
    .initial = 2;
}

backend first {
    .host = "@HOST1@";
    .port = "@PORT1@";
    .connect_timeout = 2s;
    .first_byte_timeout = 60s;
    .between_bytes_timeout = 8s;
    .probe = healthz;
}

backend second {
    .host = "@HOST2@";
    .port = "@PORT2@";
    .connect_timeout = 2s;
    .first_byte_timeout = 60s;
    .between_bytes_timeout = 8s;
    .probe = healthz;
}

sub vcl_init {
    new sources = directors.fallback(sticky = true);
    sources.add_backend(first);
    sources.add_backend(second);
}

sub vcl_recv {
    if (req.url == "/healthz") {
        return (synth(200, "OK"));
    }
    if (req.method != "GET" && req.method != "HEAD") {
        return (synth(405, "Method Not Allowed"));
    }
    if (req.url !~ "^/v1/(snapshot$|changes/|objects/)") {
        return (synth(404, "Not Found"));
    }
    # RFC 8586: a request that has been here before would come back for ever.
    if (req.http.CDN-Loop ~ "varnish-@NAME@") {
        return (synth(508, "Loop Detected"));
    }
    unset req.http.Cookie;
    unset req.http.Authorization;
    if (req.restarts == 0) {
        if (req.http.CDN-Loop) {
            set req.http.CDN-Loop = req.http.CDN-Loop + ", varnish-@NAME@";
        } else {
            set req.http.CDN-Loop = "varnish-@NAME@";
        }
    }
    set req.backend_hint = sources.backend();
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    return (lookup);
}

sub vcl_backend_response {
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    if (beresp.status != 200) {
        set beresp.ttl = 0s;
        set beresp.uncacheable = true;
    }
    return (deliver);
}

sub vcl_backend_error {
    set beresp.http.Cache-Control = "no-store";
    set beresp.http.Content-Type = "application/json";
    synthetic({"{"reason":"no source answers","remedy":"try again after a while, or ask another source" }"});
    return (deliver);
}

sub vcl_synth {
    set resp.http.Cache-Control = "no-store";
    set resp.http.Content-Type = "application/json";
    synthetic({"{"reason":"Varnish does not answer this","remedy":"ask for the snapshot, changes or objects" }"});
    return (deliver);
}

// A plugin in C: answers 503 with Retry-After until a moment: {"until": 1800000000} (Unix seconds).
//
// The functions below are the world `http-plugin` of wit/, as wit-bindgen spells it for C. What the host is given is freed by
// the bindings after the call, so texts that are part of the program are copied; what is received is ours to free.

#include <stdlib.h>
#include <string.h>

#include "http_plugin.h"

#define KEY "\"until\""
#define MEMO_MS_MAX 60000u

struct exports_latchkey_edge_http_policy_policy_t {
    uint64_t until;
};

static void set_bytes(http_plugin_list_u8_t *list, const char *text) {
    list->len = strlen(text);
    list->ptr = malloc(list->len);
    memcpy(list->ptr, text, list->len);
}

void exports_latchkey_edge_control_describe(exports_latchkey_edge_control_manifest_t *ret) {
    http_plugin_string_dup(&ret->name, "maintenance");
    http_plugin_string_dup(&ret->version, "0.1.0");
    http_plugin_string_dup(&ret->config_schema,
                           "{\"type\": \"object\", \"required\": [\"until\"], \"additionalProperties\": false,"
                           " \"properties\": {\"until\": {\"type\": \"integer\", \"minimum\": 0}}}");
    ret->fail_open_safe = true;
}

static const char *skip(const char *at, const char *end) {
    while (at < end && strchr(" \t\r\n", *at) != NULL) at++;
    return at;
}

static const char *expect(const char *at, const char *end, const char *text) {
    size_t length = strlen(text);
    at = skip(at, end);
    return at != NULL && (size_t)(end - at) >= length && memcmp(at, text, length) == 0 ? at + length : NULL;
}

// `{"until": 123}` and nothing else: where it is not that, NULL.
static const char *read_until(const char *at, const char *end, uint64_t *until) {
    if ((at = expect(at, end, "{")) == NULL || (at = expect(at, end, KEY)) == NULL ||
        (at = expect(at, end, ":")) == NULL)
        return NULL;
    const char *digits = at = skip(at, end);
    for (*until = 0; at < end && *at >= '0' && *at <= '9' && at - digits < 12; at++)
        *until = *until * 10 + (uint64_t)(*at - '0');
    return at > digits && (at = expect(at, end, "}")) != NULL && skip(at, end) == end ? at : NULL;
}

bool exports_latchkey_edge_control_plan(http_plugin_list_u8_t *config,
                                        exports_latchkey_edge_control_compiled_plan_t *ret,
                                        exports_latchkey_edge_control_list_diagnostic_t *err) {
    uint64_t until;
    const char *text = (const char *)config->ptr;
    bool read = read_until(text, text + config->len, &until) != NULL;
    http_plugin_list_u8_free(config);
    if (!read) {
        err->len = 1;
        err->ptr = calloc(1, sizeof *err->ptr);
        err->ptr->severity = EXPORTS_LATCHKEY_EDGE_CONTROL_SEVERITY_ERROR;
        http_plugin_string_dup(&err->ptr->at, "");
        http_plugin_string_dup(&err->ptr->message, "is not {\"until\": SECONDS}, of at most 12 digits");
        err->ptr->hint.is_some = true;
        http_plugin_string_dup(&err->ptr->hint.val, "write the moment in Unix seconds: date -d '3 hours' +%s");
        return false;
    }
    memset(ret, 0, sizeof *ret);
    ret->compiled.len = sizeof until;
    ret->compiled.ptr = malloc(sizeof until);
    memcpy(ret->compiled.ptr, &until, sizeof until);
    ret->hooks = EXPORTS_LATCHKEY_EDGE_CONTROL_HOOKS_REQUEST;
    return true;
}

exports_latchkey_edge_http_policy_own_policy_t exports_latchkey_edge_http_policy_constructor_policy(
    http_plugin_list_u8_t *compiled) {
    exports_latchkey_edge_http_policy_policy_t *policy = malloc(sizeof *policy);
    memcpy(&policy->until, compiled->ptr, sizeof policy->until);
    http_plugin_list_u8_free(compiled);
    return exports_latchkey_edge_http_policy_policy_new(policy);
}

void exports_latchkey_edge_http_policy_policy_destructor(exports_latchkey_edge_http_policy_policy_t *policy) {
    free(policy);
}

// Until it is over: `memo` lets the host give the same answer again without a call.
static void respond(uint64_t seconds_left, exports_latchkey_edge_http_policy_verdict_t *ret) {
    char seconds[21];
    size_t at = sizeof seconds - 1;
    seconds[at] = '\0';
    for (uint64_t left = seconds_left; left > 0; left /= 10) seconds[--at] = (char)('0' + left % 10);

    ret->action.tag = EXPORTS_LATCHKEY_EDGE_HTTP_POLICY_ACTION_RESPOND;
    exports_latchkey_edge_http_policy_local_response_t *response = &ret->action.val.respond;
    response->status = 503;
    response->headers.len = 1;
    response->headers.ptr = calloc(1, sizeof *response->headers.ptr);
    http_plugin_string_dup(&response->headers.ptr->name, "retry-after");
    set_bytes(&response->headers.ptr->value, seconds + at);
    set_bytes(&response->body, "Back soon.\n");
    ret->memo.is_some = true;
    ret->memo.val.for_ms = 1000;
}

void exports_latchkey_edge_http_policy_method_policy_on_request(
    exports_latchkey_edge_http_policy_borrow_policy_t self, exports_latchkey_edge_http_policy_facts_t *facts,
    http_plugin_string_t *host, http_plugin_string_t *path, http_plugin_string_t *maybe_query,
    http_plugin_list_option_list_u8_t *wanted, exports_latchkey_edge_http_policy_verdict_t *ret) {
    memset(ret, 0, sizeof *ret);
    uint64_t now = facts->now_ms / 1000;
    if (now < self->until) {
        respond(self->until - now, ret);
    } else {
        ret->action.tag = EXPORTS_LATCHKEY_EDGE_HTTP_POLICY_ACTION_NEXT;
        ret->memo.is_some = true;
        ret->memo.val.for_ms = MEMO_MS_MAX;
    }
    http_plugin_string_free(host);
    http_plugin_string_free(path);
    if (maybe_query != NULL) http_plugin_string_free(maybe_query);
    http_plugin_list_option_list_u8_free(wanted);
}

// Not asked: `plan` does not name this hook.
void exports_latchkey_edge_http_policy_method_policy_on_response(
    exports_latchkey_edge_http_policy_borrow_policy_t self, exports_latchkey_edge_http_policy_facts_t *facts,
    http_plugin_string_t *host, http_plugin_string_t *path, uint16_t status,
    http_plugin_list_option_list_u8_t *wanted, exports_latchkey_edge_http_policy_changes_t *ret) {
    (void)self, (void)facts, (void)status;
    memset(ret, 0, sizeof *ret);
    http_plugin_string_free(host);
    http_plugin_string_free(path);
    http_plugin_list_option_list_u8_free(wanted);
}

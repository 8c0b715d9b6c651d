// How the page asks the server.
export const key = {
  get: () => sessionStorage.getItem("danlu-key") ?? "",
  set: (value) => sessionStorage.setItem("danlu-key", value.trim()),
};

/** Another site's page cannot send x-danlu-studio without being refused. */
function options(method, body, signal) {
  const headers = { "x-danlu-studio": "1" };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  return { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) };
}

async function send(method, path, body, signal) {
  const response = await fetch(path, options(method, body, signal));
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // What is no error of the server's own is shown as it is.
  }
  throw new Error(message || response.statusText);
}

export const get = async (path) => (await send("GET", path)).json();
export const post = async (path, body = {}) => (await send("POST", path, body)).json();
export const put = async (path, body) => (await send("PUT", path, body)).json();
export const remove = async (path) => (await send("DELETE", path)).json();
export const blob = async (path) => (await send("GET", path)).blob();

/** The values of an answer that is streamed as server-sent events. */
export async function* stream(path, body, signal) {
  const response = await send("POST", path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}

// Requests to this page's own server.

async function answered(response) {
  if (response.ok) return response;
  let line = `the server answered ${response.status}`;
  try {
    line = (await response.json()).error ?? line;
  } catch {
    // not JSON: the line above says what is known
  }
  throw new Error(line);
}

async function request(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is app.py still running?");
  }
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== ""));

export async function get(name, values = {}, signal = undefined) {
  return (await answered(await request(`api/${name}?${query(values)}`, { signal }))).json();
}

function send(name, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(`api/${name}`, { method: "POST", headers, body: JSON.stringify(body), signal }).then(answered);
}

export const post = async (name, body, signal = undefined) => (await send(name, body, signal)).json();

export const postForImage = async (name, body, signal = undefined) => (await send(name, body, signal)).blob();

export async function upload(file) {
  const headers = { "Content-Type": "application/octet-stream" };
  const name = file.name.slice(-200);
  const response = await request(`api/upload?${query({ name })}`, { method: "POST", headers, body: file });
  return (await answered(response)).json();
}

export const thumbnail = (image, size) => `api/thumbnail?${query({ image, size })}`;

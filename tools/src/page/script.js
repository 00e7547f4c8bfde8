// Downloads of what the page already holds. Nothing is loaded, and the page is whole without this.
for (const button of document.querySelectorAll("button[data-from]")) {
  button.addEventListener("click", () => {
    const text = document.getElementById(button.dataset.from).textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: button.dataset.kind + ";charset=utf-8" }));
    link.download = button.dataset.file;
    document.body.append(link);
    link.click();
    link.remove();
    // The browser reads it after the click.
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
}

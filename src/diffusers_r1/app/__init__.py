"""The page: edit pictures in a browser, and read and change the plan before a pixel is touched. Needs Gradio."""
